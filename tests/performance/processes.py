"""Measured processes: how a benchmark starts one of its own, and what the kernel says about any."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from tests.performance.figures import BenchmarkError

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[2]
CHILD_SECONDS = 300.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


async def run_child(module: str, request: msgspec.Struct, result: type[T], environment: Mapping[str, str]) -> T:
    """Run a module of this package as a process of its own: request in on stdin, result out on stdout, as JSON.

    Raises:
        BenchmarkError: it failed or hung; holds the end of what it said.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"tests.performance.{module}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
        env=child_environment(environment),
    )
    try:
        async with asyncio.timeout(CHILD_SECONDS):
            output, errors = await process.communicate(msgspec.json.encode(request))
    except TimeoutError:
        raise BenchmarkError(f"{module} did not end within {CHILD_SECONDS:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = errors.decode(errors="replace")
    if process.returncode != 0:
        raise BenchmarkError(f"{module} ended with {process.returncode}:\n{said[-3000:]}")
    try:
        return msgspec.json.decode(output.splitlines()[-1], type=result)
    except (IndexError, msgspec.DecodeError) as error:
        raise BenchmarkError(f"{module} gave no result: {error}\n{said[-3000:]}") from None


def child_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a measured process: this one's, but for its settings, and importable from here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OMNIBASE_")}
    kept.pop("PYTHONSAFEPATH", None)
    return kept | dict(variables)


def read_request(kind: type[T]) -> T:
    """Return what `run_child` asks of this process."""
    return msgspec.json.decode(sys.stdin.buffer.read(), type=kind)


def write_result(result: Any) -> None:
    """Hand the result to `run_child`, as the last line of stdout."""
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
    sys.stdout.buffer.flush()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time, user and system, that a process has used."""
    # The command's name, in parentheses, may hold anything; the fields that count come after it.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def cpu_seconds_since(pid: int, began: float) -> float:
    """Return the CPU time used since `cpu_seconds` said `began`, at least the tick that the kernel counts in."""
    return max(cpu_seconds(pid) - began, 1 / _TICKS_PER_SECOND)


def resident_megabytes(pid: int, *, peak: bool = False) -> float:
    """Return the memory a process has in RAM (10^6 bytes), now or at its highest."""
    name = "VmHWM:" if peak else "VmRSS:"
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    raise BenchmarkError(f"the kernel does not say how much memory process {pid} has")


def quiet(_level: int, _event: str, /, **_fields: object) -> None:
    """Drop client log lines: a client in trouble fails the checks of its benchmark."""

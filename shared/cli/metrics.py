"""`omninode metrics`: the metrics of all processes of a node as one page, printed or served."""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from omnibase_infra.shared.cli import console
from omnibase_infra.shared.core.errors import ConfigurationError, DependencyUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_SCRAPE_SECONDS: Final = 5.0
_PARALLEL: Final = 8
_PAGE_BYTES: Final = 32 * 1024 * 1024


def metrics(
    nodes: Annotated[
        list[str] | None, typer.Argument(help="Only these workers or nodes; default: all.", metavar="[NODE]...")
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option("--target", help="Endpoints of a process, host:port; default: the workers of this machine."),
    ] = None,
    serve: Annotated[
        str | None, typer.Option("--serve", metavar="[HOST:]PORT", help="Serve the page at /metrics until Ctrl-C.")
    ] = None,
) -> None:
    """Show the metrics of all processes of a node, added up, in Prometheus' text format.

    Exit codes: 0 done, 1 no process answers, 2 wrong call.
    """
    with console.reported_errors():
        wanted = {name.replace("_", "-") for name in nodes or ()}
        addresses = [_address(target) for target in targets or ()]
        if serve is None:
            typer.echo(_page(addresses, wanted).decode(), nl=False)
            return
        host, port = _host_and_port(serve)
        asyncio.run(_serve(partial(_page, addresses, wanted), host, port))


def _page(addresses: Sequence[str], wanted: set[str], *, openmetrics: bool = False) -> bytes:
    """Return the merged page of what answers.

    Raises:
        DependencyUnavailableError: nothing does.
    """
    from omnibase_infra.shared.observability.metrics_federation import merged_page

    asked = addresses or _of_this_machine(wanted)
    if not asked:
        raise DependencyUnavailableError(
            "no worker of this machine has announced its endpoints",
            dependency="workers",
            hint="start one, or name it by --target host:port",
        )
    with ThreadPoolExecutor(_PARALLEL) as pool:
        pages = list(pool.map(_scrape, asked))
    found = [page for page in pages if isinstance(page, str)]
    for address, page in zip(asked, pages, strict=True):
        if not isinstance(page, str):
            console.note(f"{address} does not answer: {page}")
    if not found:
        raise DependencyUnavailableError("no process answers", dependency="workers")
    return merged_page(found, openmetrics=openmetrics)


def _of_this_machine(wanted: set[str]) -> list[str]:
    from omnibase_infra.shared.core.settings import state_directory
    from omnibase_infra.shared.observability.endpoint_files import announced_endpoints

    return [one.address for one in announced_endpoints(state_directory()) if not wanted or one.worker in wanted]


def _scrape(address: str) -> str | Exception:
    """Return the page of one process, or why there is none."""
    import http.client

    from omnibase_infra.shared.observability.http_spans import outgoing_request

    host, port = urlsplit(address).hostname or "", urlsplit(address).port
    connection = http.client.HTTPConnection(host, port, timeout=_SCRAPE_SECONDS)
    headers: dict[str, str] = {"Accept": "text/plain"}
    try:
        with outgoing_request("GET", f"{address}/metrics", headers) as request:
            connection.request("GET", "/metrics", headers=headers)
            response = connection.getresponse()
            request.answered(response.status)
            if response.status != 200:
                return ConnectionError(f"status {response.status}")
            return response.read(_PAGE_BYTES).decode()
    except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
        return error
    finally:
        connection.close()


class _Federation:
    """What the small HTTP server asks; implements `HealthSource`."""

    def __init__(self, page: Callable[..., bytes]) -> None:
        self._page = page

    def live(self) -> tuple[bool, str]:
        """Return that it lives: it has no work to be late with."""
        return True, "ok"

    def ready(self) -> tuple[bool, Mapping[str, str]]:
        """Return that it answers."""
        return True, {"federation": "ok"}

    def info(self) -> Mapping[str, Any]:
        """Return what this is."""
        return {"serves": "the metrics of several processes, added up"}

    def exposition(self, *, openmetrics: bool = False) -> bytes:
        """Return the merged page."""
        return self._page(openmetrics=openmetrics)


async def _serve(page: Callable[..., bytes], host: str, port: int) -> None:
    from omnibase_infra.shared.runtime.health_server import HealthServer

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with HealthServer(_Federation(page), host=host, port=port) as server:
        console.note(f"http://{host}:{server.port}/metrics")
        await stop.wait()


def _address(target: str) -> str:
    host, port = _host_and_port(target.removeprefix("http://").rstrip("/"), "--target")
    return f"http://{host}:{port}"


def _host_and_port(text: str, option: str = "--serve") -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise ConfigurationError(f"{option}: {text!r} is no HOST:PORT")
    return host or "127.0.0.1", int(port)

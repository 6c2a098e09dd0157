"""The part of `omninode generate` that is about shared models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

from omnibase_infra.shared.cli.exit_codes import FAILED, OK, USAGE
from omnibase_infra.shared.core.errors import ConfigurationError, ContractError, OmnibaseError, UnknownNodeError

_WORD: Final = "models"


def is_models(name: str) -> bool:
    """Return whether a word of the command line means shared models: `models` or `models/<service>`."""
    return name.split("/", 1)[0] == _WORD


def over_models(names: Sequence[str], *, all_of_them: bool, check: bool, diff: bool) -> int:
    """Generate, check or compare the named model contracts, or all; return the exit code.

    Raises:
        UnknownNodeError: there is no model contract of a name.
    """
    code = OK
    for path in _contracts(names, all_of_them=all_of_them or _WORD in names):
        name = f"{_WORD}/{path.parent.name}"
        try:
            code = max(code, _one(path, name, check=check, diff=diff))
        except ContractError as error:
            typer.echo(str(error), err=True)
            code = USAGE
        except (OmnibaseError, OSError) as error:
            typer.echo(f"error: {path}: {error}", err=True)
            code = max(code, USAGE if isinstance(error, ConfigurationError) else FAILED)
    return code


def models_folder() -> Path:
    """Return the folder of the shared models that come with this distribution."""
    from omnibase_infra.shared import models

    return Path(str(models.__file__)).resolve().parent


def _contracts(names: Sequence[str], *, all_of_them: bool) -> list[Path]:
    from omnibase_infra.shared.contracts.model_contract import discover_model_contracts

    found = {path.parent.name: path for path in discover_model_contracts(models_folder())}
    if all_of_them:
        return list(found.values())
    chosen = [name.split("/", 1)[1].strip("/") for name in names]
    if unknown := [name for name in chosen if name not in found]:
        raise UnknownNodeError(f"there are no shared models {unknown[0]!r}; there are those of: {', '.join(found)}")
    return [found[name] for name in chosen]


def _one(path: Path, name: str, *, check: bool, diff: bool) -> int:
    from omnibase_infra.shared.cli.generate import summary
    from omnibase_infra.shared.generator.shared_models import check_models, diff_models, generate_models

    if check:
        findings = check_models(path, f"omninode generate {name}")
        for finding in findings:
            typer.echo(str(finding))
        if not findings:
            typer.echo(f"{name}: as its model contract says")
        return FAILED if findings else OK
    if diff:
        lines = list(diff_models(path))
        typer.echo("".join(lines), nl=False)
        return FAILED if lines else OK
    typer.echo(f"{name}: {summary(generate_models(path))}")
    return OK

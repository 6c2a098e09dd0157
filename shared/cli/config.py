"""`omninode config`: what the settings are, where each comes from, and everything that is wrong with them at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from omnibase_infra.shared.cli import console, exit_codes

if TYPE_CHECKING:
    from omnibase_infra.shared.core.errors import OmnibaseError
    from omnibase_infra.shared.core.setting_catalogue import SettingEntry
    from omnibase_infra.shared.core.settings import Settings
    from omnibase_infra.shared.core.worker_spec import WorkerSpec

app = typer.Typer(
    name="config",
    help=(
        "The settings of a process: OMNIBASE_* variables, then the file `.omnibase/env`.\n\n"
        "Secrets are never shown; a reference to one (vault://…, file://…) is."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

# Stands for a secret that could not be had, so that the rest can be checked all the same.
_PLACEHOLDER: Final = "unresolved"


class ShownSetting(msgspec.Struct, frozen=True):
    """One line of `config show`; `source` is environment, file, default or unset, `value` fit to be shown."""

    variable: str
    value: str | None
    source: str
    known: bool = True


@app.command()
def check(
    node: Annotated[
        str | None, typer.Argument(help="Also check that all is there that this node needs.", metavar="[NODE]")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no Vault server; references are checked for their form only.")
    ] = False,
) -> None:
    """Check all settings, resolve all references to secrets, and print everything that is wrong.

    Connects to the Vault server alone, and only where a reference names it; `omninode doctor` asks the others.
    Exit codes: 0 all is well, 2 something is wrong or there is no such node.
    """
    from omnibase_infra.shared.registry.nodes import load_spec

    with console.reported_errors():
        spec = load_spec(node, None) if node else None
        problems = list(_problems(spec, offline=offline))
    for problem in problems:
        typer.echo(problem)
    if problems:
        console.note(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}")
        raise typer.Exit(exit_codes.USAGE)
    console.note("the settings are complete and fit together")


@app.command()
def show(
    everything: Annotated[bool, typer.Option("--all", help="Also those that are unset.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Print each setting, its value and where that comes from; secrets are masked, references to them are shown.

    Nothing is checked and nobody is asked. Exit codes: 0 printed, 2 the file has a malformed line.
    """
    with console.reported_errors():
        shown = [one for one in _shown() if everything or one.source != "unset"]
    if as_json:
        console.print_json(shown)
        return
    rows = [
        (one.variable, "-" if one.value is None else one.value, one.source if one.known else f"{one.source}, unknown")
        for one in shown
    ]
    console.print_table(("setting", "value", "from"), rows)


def _problems(spec: WorkerSpec | None, *, offline: bool) -> Iterator[str]:
    from omnibase_infra.shared.core.errors import OmnibaseError
    from omnibase_infra.shared.core.settings import load_settings, secret_references
    from omnibase_infra.shared.secrets.resolution import resolve_secrets, with_secrets

    yield from _unknown()
    try:
        settings = load_settings()
    except OmnibaseError as error:
        yield from _lines(error)
        return
    placeholders = with_secrets(settings, dict.fromkeys(secret_references(settings), _PLACEHOLDER))
    if not offline:
        try:
            settings = resolve_secrets(settings)
        except OmnibaseError as error:
            yield from _lines(error)
            settings = placeholders
    else:
        settings = placeholders
    yield from _misfits(settings, spec)


def _unknown() -> Iterator[str]:
    """Yield what looks like a setting and is none, often a misspelt one."""
    from omnibase_infra.shared.core.setting_catalogue import OTHER_VARIABLES, setting_entries
    from omnibase_infra.shared.core.settings import given_settings, variable

    known = {*OTHER_VARIABLES, *(entry.variable for entry in setting_entries())}
    for name in sorted(given_settings()):
        if variable(name) not in known:
            near = difflib.get_close_matches(variable(name), known, n=1, cutoff=0.8)
            yield f"{variable(name)} is no setting" + (f"; did you mean {near[0]}?" if near else "")


def _misfits(settings: Settings, spec: WorkerSpec | None) -> Iterator[str]:
    """Yield what is missing, and what does not fit together."""
    from omnibase_infra.shared.core.errors import OmnibaseError
    from omnibase_infra.shared.core.settings import require_kafka, secret_value
    from omnibase_infra.shared.kafka.security import security_config
    from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool

    checks: list[Callable[[], object]] = [lambda: require_kafka(settings), lambda: security_config(settings)]
    needs_postgres = spec is not None and "postgres" in spec.dependencies
    unresolved = secret_value(settings, "postgres_dsn") == _PLACEHOLDER
    if (needs_postgres or settings.postgres_dsn is not None) and not unresolved:
        checks.append(lambda: PostgresConnectionPool.from_settings(settings))
    for one in checks:
        try:
            one()
        except OmnibaseError as error:
            yield from _lines(error)


def _lines(error: OmnibaseError) -> list[str]:
    """Return an error's problems, one each; the title above a list of them is left out."""
    title, *listed = error.message.split("\n  ")
    return listed or [f"{title}; {error.hint}" if error.hint else title]


def _shown() -> Iterator[ShownSetting]:
    from omnibase_infra.shared.core.redaction import MASK
    from omnibase_infra.shared.core.setting_catalogue import OTHER_VARIABLES, setting_entries
    from omnibase_infra.shared.core.settings import ENV_FILE, given_settings, state_directory, variable

    given = given_settings()
    file = state_directory() / ENV_FILE
    for entry in setting_entries():
        if entry.name in given:
            value, source = given.pop(entry.name)
            yield ShownSetting(entry.variable, _fit_to_show(entry, value), _place(source, file))
        elif entry.default in ("unset", "**required**"):
            yield ShownSetting(entry.variable, None, "unset")
        else:
            yield ShownSetting(entry.variable, entry.default.strip("`"), "default")
    for name, (_, source) in sorted(given.items()):
        if variable(name) not in OTHER_VARIABLES:
            # Perhaps the misspelt name of a secret.
            yield ShownSetting(variable(name), MASK, _place(source, file), known=False)


def _place(source: str, file: Path) -> str:
    return str(file) if source == "file" else source


def _fit_to_show(entry: SettingEntry, value: str) -> str:
    from omnibase_infra.shared.core.redaction import MASK, redact_text
    from omnibase_infra.shared.core.secret_references import is_reference

    if entry.secret:
        return value if not value or is_reference(value) else MASK
    return redact_text(value)

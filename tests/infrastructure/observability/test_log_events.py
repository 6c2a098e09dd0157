"""What operators match on: event names come from the catalogue, and the catalogue is used."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import omnibase_infra
from omnibase_infra.shared.observability.log_events import LogEvent

LOGGER_NAMES = {"log", "_log", "logger", "_logger"}
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
ROOT = Path(omnibase_infra.__file__).parent


def _is_logger(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "get_logger"
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name in LOGGER_NAMES


def _logged_literals(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield where a logger is called with a literal for its event, and the literal."""
    for node in ast.walk(tree):
        if (
            not isinstance(node, ast.Call)
            or not isinstance(node.func, ast.Attribute)
            or not _is_logger(node.func.value)
        ):
            continue
        position = 0 if node.func.attr in LEVELS else 1 if node.func.attr in {"event", "log"} else len(node.args)
        if position < len(node.args) and isinstance(node.args[position], (ast.Constant, ast.JoinedStr)):
            yield node.lineno, ast.unparse(node.args[position]).strip("'")


def _uses_standard_logging(tree: ast.AST) -> bool:
    """Return whether a module has a logger of the standard library, whose lines arrive as `library_message`."""
    return any(isinstance(node, ast.Attribute) and node.attr == "getLogger" for node in ast.walk(tree))


def test_event_names_are_snake_case_and_equal_to_their_member() -> None:
    for event in LogEvent:
        assert event.value == event.name.lower()


def test_no_line_is_logged_under_a_name_outside_the_catalogue() -> None:
    # rglob does not follow links in every Python version, and the packages are links in a checkout.
    folders = [path.resolve() for path in ROOT.iterdir() if path.is_dir()]
    strays: list[str] = []
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not _uses_standard_logging(tree):
            strays += [f"{path}:{line}: {text}" for line, text in _logged_literals(tree) if text not in set(LogEvent)]
    assert strays == []


def test_the_check_sees_a_stray() -> None:
    source = """
log.info('hi')
self._log.error(f'x {y}')
get_logger().warning('w', a=1)
self._log.event(ERROR, 'e')
log.info(LogEvent.A)
x.info('no')
"""
    assert list(_logged_literals(ast.parse(source))) == [(2, "hi"), (3, "f'x {y}"), (4, "w"), (5, "e")]

"""Fail when SQL is put together from strings: values are bound, names come from files and contracts.

    python deployment/security/no_dynamic_sql.py [FOLDER ...]      default: shared, topics, workers

It looks for strings that begin like a statement and have parts filled in (f-string, `%`, `+`, `.format`, `.join`), and such
strings in the first argument of `execute`, `fetch`, `prepare` and the like, whatever they begin with. A name that cannot be
bound, such as a partition's, is allowed on a line that ends in `# sql: why it is safe`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("shared", "topics", "workers")
# Test fixtures that ship for people who write nodes create databases of their own; the product never imports them.
LEFT_OUT = ("shared/testing",)
STATEMENT = re.compile(
    r"\s*((?i:SELECT|INSERT\s+INTO|UPDATE\s+\S+\s+SET|DELETE\s+FROM|MERGE\s+INTO|LOCK\s+TABLE|SET\s+(LOCAL|SESSION|ROLE)"
    r"|(CREATE|ALTER|DROP)\s+(OR\s+REPLACE\s+)?(TABLE|INDEX|UNIQUE|SCHEMA|ROLE|USER|DATABASE|VIEW|FUNCTION|TRIGGER))\b"
    # In small letters these begin sentences.
    r"|(WITH|TRUNCATE|COPY|GRANT|REVOKE|RESET|LISTEN|NOTIFY|EXECUTE|CALL|DO)\s)"
)
RUNS_SQL = frozenset({"execute", "executemany", "fetch", "fetchrow", "fetchval", "fetchmany", "prepare", "cursor"})
EXCUSE = re.compile(r"#\s*sql:\s*\S+.*$")


def findings(source: str, name: str) -> Iterator[str]:
    """Yield `name:line: what` for everything in a module that puts SQL together."""
    lines = source.splitlines()
    tree = ast.parse(source)
    seen: set[int] = set()
    for node in ast.walk(tree):
        built = _built(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in RUNS_SQL:
            built = node.args[0] if node.args and _has_parts(node.args[0]) else built
        if built is None or built.lineno in seen or _excused(built, lines):
            continue
        seen.add(built.lineno)
        yield f"{name}:{built.lineno}: SQL put together from strings: bind values, or say why it is safe with `# sql: …`"


def _built(node: ast.AST) -> ast.expr | None:
    """Return a string expression with parts filled in that begins like a statement."""
    return node if isinstance(node, ast.expr) and _has_parts(node) and STATEMENT.match(_beginning(node)) else None


def _has_parts(node: ast.expr) -> bool:
    """Return whether a string is made from parts of which one is not a literal."""
    match node:
        case ast.JoinedStr():
            return any(isinstance(part, ast.FormattedValue) for part in node.values)
        case ast.BinOp(op=ast.Mod(), left=left):
            return bool(_beginning(left))
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            literal = all(isinstance(side, ast.Constant) for side in (left, right))
            return not literal and bool(_beginning(left) or _beginning(right) or _has_parts(left))
        case ast.Call(func=ast.Attribute(attr="format" | "format_map" | "replace", value=value)):
            return bool(_beginning(value))
        case ast.Call(func=ast.Attribute(attr="join", value=ast.Constant(value=str()))):
            return True
    return False


def _beginning(node: ast.expr) -> str:
    """Return the literal text that an expression begins with."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=[first, *_]):
            return _beginning(first)
        case ast.BinOp(left=left):
            return _beginning(left)
        case ast.Call(func=ast.Attribute(attr="join"), args=[ast.List(elts=[first, *_]) | ast.Tuple(elts=[first, *_])]):
            return _beginning(first)
        case ast.Call(func=ast.Attribute(value=value)):
            return _beginning(value)
    return ""


def _excused(node: ast.expr, lines: Sequence[str]) -> bool:
    last = node.end_lineno or node.lineno
    return any(EXCUSE.search(line) for line in lines[node.lineno - 1 : last + 1])


def main(folders: Sequence[str]) -> int:
    """Look through the folders; print what is found; return an exit code."""
    modules = sorted(path for folder in folders or FOLDERS for path in (ROOT / folder).rglob("*.py"))
    found = []
    for path in modules:
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(LEFT_OUT):
            found += findings(path.read_text(encoding="utf-8"), name)
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Whether a people-owned file still has the classes and methods that generated code calls."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import TypeAlias

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


def signature_problems(scaffold: str, actual: str) -> list[str]:
    """Return how `actual` misses what `scaffold` promises: public classes, their constructors, public methods.

    Args:
        scaffold: the file as the generator would begin it today.
        actual: the file as people have it.
    """
    try:
        have = _classes(ast.parse(actual))
    except SyntaxError as error:
        return [f"line {error.lineno}: {error.msg}"]
    problems = []
    for name, expected in _classes(ast.parse(scaffold)).items():
        if name not in have:
            problems.append(f"the class {name} is missing")
            continue
        problems.extend(_missing_methods(name, expected, have[name]))
    return problems


def _missing_methods(name: str, expected: ast.ClassDef, actual: ast.ClassDef) -> Iterator[str]:
    have = dict(_methods(actual))
    wanted = dict(_methods(expected))
    if "__init__" in have and "__init__" not in wanted and _needs_arguments(have["__init__"]):
        yield f"{name} is constructed without arguments, its __init__ needs some; give `needs` in the contract"
    for method, function in wanted.items():
        if method not in have:
            yield f"{name}.{method} is missing, expected `{_signature(function)}`"
        elif _signature(have[method]) != _signature(function):
            line = have[method].lineno
            yield f"line {line}: {name}.{method} is `{_signature(have[method])}`, expected `{_signature(function)}`"


def _classes(module: ast.Module) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in module.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}


def _methods(node: ast.ClassDef) -> Iterator[tuple[str, _Function]]:
    for item in node.body:
        if isinstance(item, _Function) and (not item.name.startswith("_") or item.name == "__init__"):
            yield item.name, item


def _signature(function: _Function) -> str:
    prefix = "async def" if isinstance(function, ast.AsyncFunctionDef) else "def"
    result = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    # `_context` and `_request` say that they are not used; callers pass them by position.
    arguments = re.sub(r"\b_(?=(context|request)\b)", "", ast.unparse(function.args))
    return f"{prefix} {function.name}({arguments}){result}"


def _needs_arguments(function: _Function) -> bool:
    arguments = function.args
    required = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults) - 1
    return required > 0 or any(default is None for default in arguments.kw_defaults)

"""Render templates: strict about undefined names, no autoescape, line ends kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from omnibase_infra.shared.generator.imports import docstring

if TYPE_CHECKING:
    from jinja2 import Environment


class Templates:
    """The templates of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment: Environment | None = None

    def render(self, template: str, **values: Any) -> str:
        """Return the rendered template."""
        if self._environment is None:
            self._environment = _environment(self._folder)
        return self._environment.get_template(template).render(**values)


TEMPLATES: Final = Templates(Path(__file__).parent / "templates")


def _environment(folder: Path) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - what is rendered is Python and Markdown, and the contract is checked
    )
    environment.filters |= {
        "doc": docstring,
        "python": repr,
        "json": lambda value: json.dumps(value, ensure_ascii=False),
        "sentence": sentence,
        "sql": sql_literal,
    }
    return environment


def sentence(text: str) -> str:
    """Return text that ends with a full stop."""
    stripped = " ".join(text.split())
    return stripped if not stripped or stripped[-1] in ".!?" else f"{stripped}."


def sql_literal(text: str) -> str:
    """Return SQL as a Python string that reads like the SQL, where Python allows it."""
    if "\\" in text or '"""' in text or text.endswith('"') or "\n" not in text:
        return repr(text)
    return f'"""\\\n{text}"""'

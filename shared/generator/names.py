"""Names of generated things, derived from the contract's snake-case names."""

from __future__ import annotations

import re


def pascal_case(name: str) -> str:
    """Return `insert_order` as `InsertOrder`."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def snake_case(name: str) -> str:
    """Return `ModelInsertOrder` as `model_insert_order`, `HTTPRoute` as `http_route`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return spaced.lower()


def model_name(*parts: str) -> str:
    """Return the class name of a model: `model_name("insert_order", "row")` is `ModelInsertOrderRow`."""
    return "Model" + "".join(pascal_case(part) for part in parts)

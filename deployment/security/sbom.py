"""Write a CycloneDX bill of materials of everything that `requirements.lock` pins.

    python deployment/security/sbom.py [FILE]        default: dist/sbom.cdx.json

The same lock gives the same file, byte for byte: its serial number is derived from the components, and it has no time stamp.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parents[2]
PINNED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)\s*(?:;\s*(?P<marker>[^\\]+?))?\s*\\?$")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def components(lock: str) -> Iterator[Component]:
    """Yield what a lock pins, in its order.

    Raises:
        SystemExit: it has a line that is neither a pin nor a hash; nothing may be left out unseen.
    """
    current: Component | None = None
    for number, line in enumerate(lock.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if pin := PINNED.match(line):
            if current is not None:
                yield current
            current = _component(pin["name"], pin["version"], pin["marker"])
        elif (found := HASH.search(line)) and current is not None:
            current.hashes.add(HashType(alg=HashAlgorithm.SHA_256, content=found[1]))
        else:
            raise SystemExit(f"requirements.lock:{number}: expected `name==version` or a hash")
    if current is not None:
        yield current


def _component(name: str, version: str, marker: str | None) -> Component:
    url = PackageURL("pypi", name=name.lower(), version=version)
    properties = [Property(name="python:marker", value=marker)] if marker else []
    return Component(
        name=name, version=version, type=ComponentType.LIBRARY, purl=url, bom_ref=str(url), properties=properties
    )


def bill_of_materials(lock: str, project: dict[str, str]) -> str:
    """Return the document as JSON."""
    product = Component(
        name=project["name"], version=project["version"], type=ComponentType.APPLICATION, bom_ref=project["name"]
    )
    parts = list(components(lock))
    bom = Bom(components=parts, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{project['version']}\n{lock}"))
    bom.metadata.component = product
    bom.register_dependency(product, parts)
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    document["metadata"].pop("timestamp", None)
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write the file; return an exit code."""
    target = Path(arguments[0]) if arguments else ROOT / "dist" / "sbom.cdx.json"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = bill_of_materials((ROOT / "requirements.lock").read_text(encoding="utf-8"), project)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    print(f"{target}: {len(json.loads(text)['components'])} components")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

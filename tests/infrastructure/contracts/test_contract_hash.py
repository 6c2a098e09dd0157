"""The hash changes with everything that generated code depends on, and with nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

from omnibase_infra.shared.contracts.contract_hash import contract_hash
from omnibase_infra.shared.testing.contract_folder import ContractFolder


def test_the_hash_is_as_documented(tmp_path: Path) -> None:
    (tmp_path / "b.sql").write_bytes(b"two")
    (tmp_path / "a.sql").write_bytes(b"one")
    pieces = [b"text", b"a.sql", b"one", b"b.sql", b"two"]
    expected = hashlib.sha256(b"".join(len(piece).to_bytes(8, "big") + piece for piece in pieces)).hexdigest()
    assert contract_hash(b"text", tmp_path, ["b.sql", "a.sql", "b.sql"]) == expected


def test_every_file_counts_and_places_do_not(order_store: ContractFolder, tmp_path: Path) -> None:
    hashes = [order_store.load().sha256]
    order_store.write("migrations/0002_more.sql", "SELECT 1;")
    hashes.append(order_store.load().sha256)
    order_store.write("statements/insert_order.sql", "-- name: insert_order :one\nSELECT 1\n")
    hashes.append(order_store.load().sha256)
    order_store.write("contract.yaml", f"{order_store.text()}\n# a comment\n")
    hashes.append(order_store.load().sha256)
    assert len(set(hashes)) == 4
    moved = ContractFolder(tmp_path / "elsewhere", "order_store")
    for name in (
        "contract.yaml",
        "statements/insert_order.sql",
        "migrations/0001_orders.sql",
        "migrations/0002_more.sql",
    ):
        moved.write(name, (order_store.folder / name).read_text(encoding="utf-8"))
    assert moved.load().sha256 == hashes[-1]


def test_line_ends_of_other_systems_do_not_count(order_store: ContractFolder) -> None:
    before = order_store.load().sha256
    for path in (order_store.path, *order_store.folder.glob("*/*.sql")):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert order_store.load().sha256 == before

"""The benchmark of inbox and outbox works, and its section of the document is its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.performance import inbox_growth
from tests.performance.inbox_growth import BEGIN, END, write_section
from tests.performance.report import BEGIN as REPORT_BEGIN
from tests.performance.report import END as REPORT_END
from tests.performance.report import write_document

from omnibase_infra.shared.testing.postgres_fixtures import PostgresServer, fresh_database


@pytest.mark.parametrize("timed", [True, False])
async def test_it_measures_at_each_level_and_shows_a_plan_of_one_day(
    postgres_container: PostgresServer, timed: bool
) -> None:
    with fresh_database(postgres_container) as filled, fresh_database(postgres_container) as empty:
        growth = await inbox_growth.measure(filled.dsn, empty.dsn, rows=3000, days=3, batches=2, timed=timed)
    assert [level.rows for level in growth.levels] == [0, 600, 3000]
    assert [level.today for level in growth.levels] == [1000, 2200, 4000]
    assert all(level.claim_ms > 0 and level.empty_claim_ms > 0 for level in growth.levels)
    assert "Append" not in growth.plan
    assert growth.drop_rows == 4001
    text = inbox_growth.markdown([growth], {"processor": "fast"}, "again")
    assert "| 3,000 | 4,000 |" in text


def test_both_reports_of_the_document_leave_each_other_alone(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(f"# Ours\n\n{REPORT_BEGIN}\nfigures\n{REPORT_END}\n\nNotes.\n", encoding="utf-8")
    write_section(document, "first\n")
    write_section(document, "second\n")
    write_document(document, [], {"date": "today"}, "make bench")
    text = document.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert "second" in text
    assert "first" not in text
    assert "- date: today" in text
    assert "Notes." in text


def test_a_section_with_half_its_markers_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(f"{BEGIN}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="inbox growth: end"):
        write_section(document, "text\n")

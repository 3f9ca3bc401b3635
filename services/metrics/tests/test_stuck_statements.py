"""Whose statement has ended the service is told for a while."""

from __future__ import annotations

from pathlib import Path

from services.metrics.query.stuck import FILE_NAME, TOLD_S, StuckStatements


def test_what_ended_the_service_is_known_after_its_start_for_a_while(tmp_path: Path) -> None:
    now_s = 1_000_000.0
    StuckStatements(tmp_path, lambda: now_s).note("alice")
    known = StuckStatements(tmp_path, lambda: now_s)
    assert known.problem is not None and "alice" in known.problem
    now_s += TOLD_S
    assert known.problem is None


def test_a_note_that_cannot_be_read_or_written_ends_nothing(tmp_path: Path) -> None:
    for content in ("", "{", "[]", '{"alice": "late"}', "\x00"):
        (tmp_path / FILE_NAME).write_text(content)
        assert StuckStatements(tmp_path).problem is None
    StuckStatements(tmp_path / "nowhere").note("alice")

"""What came back is on disk at once, and survives a crash at any byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.evaluation.asking.journal import EvalJournal, read_journal
from analysis.evaluation.tests.kept import exchange
from schemas.errors import InvalidRequest


def test_a_line_that_a_crash_cut_off_anywhere_is_taken_away_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    one, two = (exchange(n, "A", {"alpha": "red"}) for n in range(2))
    with EvalJournal(path) as journal:
        journal.keep(one.request_id, one)
        journal.keep(two.request_id, two)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole), 97):
        path.write_bytes(whole[:end])
        assert read_journal(path) == [one]
        with EvalJournal(path) as journal:
            assert list(journal.records) == [one.request_id]
            journal.keep(two.request_id, two)
        assert read_journal(path) == [one, two]


def test_a_line_that_is_damaged_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with EvalJournal(path) as journal:
        journal.keep("0-0", exchange(0, "A", {"alpha": "red"}))
    path.write_bytes(b'{"half": 1}\n' + path.read_bytes())
    with pytest.raises(InvalidRequest, match="line 1 is damaged"):
        read_journal(path)


def test_two_evaluations_do_not_go_on_with_one_run(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with EvalJournal(path), pytest.raises(InvalidRequest, match="another evaluation is writing") as refused:
        EvalJournal(path)
    assert refused.value.field == "resume"

"""The journal of a batch: what was asked and done survives, and belongs to one batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import ErrorBody, InvalidRequest
from services.cli.batch.journal import Asked, BatchJournal, Head
from services.cli.batch.records import Reply, TaskRecord

HEAD = Head(run="run-1", started_at_s=1.0, settings="aa")
ANSWERED = TaskRecord(
    file="a.txt", prompt="summary", success=True, response=Reply(model="m", instance="i", response="Ja – {}")
)
FAILED = TaskRecord(
    file="a.txt", prompt="summary", success=False, error=ErrorBody(code="overloaded", message="full")
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_a_journal_knows_after_a_crash_what_was_asked_and_done(path: Path) -> None:
    with BatchJournal(path, HEAD) as journal:
        journal.note_asked(Asked(task="1", model="m", attempt=1))
        journal.keep("1", FAILED)
        journal.note_asked(Asked(task="2", model="m", attempt=1))
        journal.keep("2", ANSWERED)
        journal.note_asked(Asked(task="3", model="other", attempt=2))
        journal.note_time(4.5)
    with BatchJournal(path, HEAD.model_copy(update={"run": "run-2"})) as journal:
        assert (journal.head.run, journal.seconds_before) == ("run-1", 4.5)
        assert [journal.is_done(task) for task in "1234"] == [False, True, False, False]
        assert [journal.failed(task) for task in "1234"] == [True, False, False, False]
        assert (journal.record("1"), journal.record("2"), journal.record("3")) == (FAILED, ANSWERED, None)
        assert journal.asked["3"] == Asked(task="3", model="other", attempt=2)
        journal.keep("1", ANSWERED)
        assert journal.record("1") == ANSWERED


def test_a_line_that_was_cut_off_is_cut_away(path: Path) -> None:
    with BatchJournal(path, HEAD) as journal:
        journal.keep("1", ANSWERED)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"line":"done","task":"2","rec')
    with BatchJournal(path, HEAD) as journal:
        assert journal.is_done("1")
        assert not journal.is_done("2")
        assert path.read_bytes() == whole


def test_another_batch_does_not_go_on_here(path: Path) -> None:
    with BatchJournal(path, HEAD):
        pass
    with pytest.raises(InvalidRequest, match="--restart") as refused:
        BatchJournal(path, HEAD.model_copy(update={"settings": "bb"}))
    assert refused.value.field == "output"


def test_two_batches_do_not_write_one_journal(path: Path) -> None:
    with BatchJournal(path, HEAD), pytest.raises(InvalidRequest, match="another batch is writing"):
        BatchJournal(path, HEAD)


def test_a_batch_that_begins_anew_forgets_its_journal_whatever_is_in_it(path: Path) -> None:
    path.write_bytes(b"some text\n")
    with BatchJournal(path, HEAD, restart=True) as journal:
        journal.keep("1", ANSWERED)
    with BatchJournal(path, HEAD.model_copy(update={"settings": "bb"}), restart=True) as journal:
        assert not journal.is_done("1")
        assert journal.head.settings == "bb"


def test_a_batch_does_not_begin_anew_under_another_one_s_hands(path: Path) -> None:
    with BatchJournal(path, HEAD) as journal:
        with pytest.raises(InvalidRequest, match="another batch is writing"):
            BatchJournal(path, HEAD, restart=True)
        journal.keep("1", ANSWERED)
    with BatchJournal(path, HEAD) as journal:
        assert journal.is_done("1")


@pytest.mark.parametrize("content", [b"some text\n", b'{"line":"song"}\n'])
def test_a_file_that_is_no_journal_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match="not the journal"):
        BatchJournal(path, HEAD)
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be written"):
        BatchJournal(tmp_path, HEAD)

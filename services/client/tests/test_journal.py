"""What a long run has done is on disk at once, survives a kill at any byte, and has one writer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, TypeAdapter

from schemas.errors import InvalidRequest
from schemas.message import Struct
from services.client.bulk.journal import (
    Journal,
    JournalDamaged,
    JournalInUse,
    JournalOfAnotherRun,
    JournalUnwritable,
    RecordJournal,
    read_records,
)


class Head(Struct):
    """Whose journal it is."""

    line: Literal["head"] = "head"
    run: str


class Job(Struct):
    """What was done."""

    line: Literal["job"] = "job"
    key: str
    text: str = "Ja – {}\n"


Line = Head | Job
LINES: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="line")])
JOBS = (Job(key="1"), Job(key="2", text="two"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def journal(path: Path) -> Journal[Line]:
    return Journal(path, LINES, field="output", run="test")


def records(path: Path) -> RecordJournal[Job]:
    return RecordJournal(path, Job, lambda job: job.key, field="resume", run="test")


def begin(opened: Journal[Line], run: str = "a") -> Line:
    return opened.begin(
        Head(run=run), lambda found: found == Head(run=run), "belongs to another: try --restart"
    )


def test_what_was_appended_is_there_before_the_file_is_closed(path: Path) -> None:
    with records(path) as opened:
        for job in JOBS:
            opened.keep(job.key, job)
        assert read_records(path, Job, field="resume") == list(JOBS)


def test_a_line_is_read_again_from_where_it_began(path: Path) -> None:
    with journal(path) as opened:
        begin(opened)
        places = [opened.append(job) for job in JOBS]
        assert [opened.read(place) for place in reversed(places)] == [JOBS[1], JOBS[0]]
    with journal(path) as opened:
        assert begin(opened) == Head(run="a")
        assert list(opened.replay()) == list(zip((0, *places), (Head(run="a"), *JOBS), strict=True))


def test_a_line_that_a_kill_cut_off_anywhere_is_cut_away_and_nothing_else(path: Path) -> None:
    with records(path) as opened:
        for job in JOBS:
            opened.keep(job.key, job)
    whole = path.read_bytes()
    for end in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:end])
        assert read_records(path, Job, field="resume") == [JOBS[0]]
        with records(path) as opened:
            assert (opened.is_done("1"), opened.is_done("2")) == (True, False)
            opened.keep("2", JOBS[1])
        assert path.read_bytes() == whole


def test_a_head_that_was_cut_off_is_written_again(path: Path) -> None:
    path.write_bytes(b'{"line":"he')
    with journal(path) as opened:
        assert begin(opened) == Head(run="a")
        assert [line for _, line in opened.replay()] == [Head(run="a")]


def test_another_run_does_not_go_on_here(path: Path) -> None:
    with journal(path) as opened:
        begin(opened)
    before = path.read_bytes()
    with journal(path) as opened, pytest.raises(JournalOfAnotherRun, match="try --restart") as refused:
        begin(opened, "b")
    assert refused.value.field == "output"
    assert path.read_bytes() == before


def test_damage_in_the_middle_names_the_line_and_leaves_the_file_alone(path: Path) -> None:
    content = LINES.dump_json(JOBS[0]) + b'\n{"half": 1}\n' + LINES.dump_json(JOBS[1]) + b'\n{"to'
    path.write_bytes(content)
    with pytest.raises(JournalDamaged, match="line 2 is damaged") as refused:
        records(path)
    assert refused.value.field == "resume"
    with pytest.raises(JournalDamaged, match="line 2 is damaged"):
        read_records(path, Job, field="resume")
    assert path.read_bytes() == content


def test_one_writer_at_a_time(path: Path) -> None:
    with records(path) as opened:
        with pytest.raises(JournalInUse, match="another test is writing"):
            records(path)
        opened.keep("1", JOBS[0])
    with records(path) as opened:
        assert opened.is_done("1")


def test_one_that_could_not_be_read_is_let_go_of(path: Path) -> None:
    path.write_bytes(b"{}\n")
    with pytest.raises(JournalDamaged):
        records(path)
    path.write_bytes(b"")
    with records(path) as opened:
        assert opened.records == {}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalUnwritable, match="cannot be written"):
        journal(tmp_path)


@pytest.mark.parametrize("error", [JournalDamaged, JournalInUse, JournalOfAnotherRun, JournalUnwritable])
def test_a_journal_that_cannot_be_gone_on_with_is_a_wrong_request(error: type[InvalidRequest]) -> None:
    assert error("no", field="output").body().code == "invalid_request"


def test_no_file_is_no_record(path: Path) -> None:
    assert read_records(path, Job, field="resume") == []

"""The journal of a run: a line for each request that has come back, before the next one is asked."""

from __future__ import annotations

from pathlib import Path

from analysis.evaluation.asking.exchange import Exchange
from services.client.bulk.journal import RecordJournal, read_records


class EvalJournal(RecordJournal[Exchange]):
    """The exchanges of a run, by request. InvalidRequest, naming `resume`, if it cannot be gone on with."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, Exchange, lambda kept: kept.request_id, field="resume", run="evaluation")


def read_journal(path: Path) -> list[Exchange]:
    """All exchanges of a file, none if there is no file; InvalidRequest names a line that is damaged."""
    return read_records(path, Exchange, field="resume")

"""The orders of one generator process: what it sends, to whom, and when."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

from loadtest.generate.plan import LoadPlan


@dataclass(frozen=True)
class Order:
    """One process's part of a run.

    `target` is `mesh`, or a subject on which anybody replies; `records` is the Parquet file to be written.
    """

    plan: LoadPlan
    process: int
    url: str
    target: str
    records: Path

    def write(self, path: Path) -> None:
        """For a child process, and nobody else: it is a pickle."""
        path.write_bytes(pickle.dumps(self))

    @classmethod
    def read(cls, path: Path) -> Order:
        """What the parent process has written."""
        order = pickle.loads(path.read_bytes())
        assert isinstance(order, cls)
        return order

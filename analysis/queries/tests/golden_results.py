"""What the golden files hold, and how they are written: `python -m analysis.queries.tests.golden_results`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from analysis.queries.__main__ import chosen, run_on
from analysis.queries.tests.day import a_day
from schemas import subjects
from schemas.requests.queries import Rows
from services.metrics.ingest.position import Position
from services.metrics.ingest.stored_event import StoredEvent
from services.metrics.ingest.writer import Writer
from services.metrics.settings import VIEWS_FOLDER
from services.metrics.store.database import Database

GOLDEN = Path(__file__).parent / "golden"
DIGITS = 9
PARAMETERS: dict[str, dict[str, str]] = {"slowest_requests": {"count": "5"}, "activity": {"step_s": "3600"}}
NOT_OURS = ("recent_", "waterfall")
"""Queries of other commands, whose tests are with those."""
PLACE = ("stream_epoch", "sequence")
"""Where a row stands in the stream differs from run to run."""


def document(rows: Rows) -> dict[str, Any]:
    """A result as its golden file has it: numbers to nine digits, without places in the stream."""
    names = rows.names
    kept = [index for index, name in enumerate(names) if name not in PLACE]
    table = [[_rounded(row[index]) for index in kept] for row in rows.rows]
    return {"columns": [names[index] for index in kept], "rows": table}


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def results() -> dict[str, dict[str, Any]]:
    """The result of every query over the day, through decoder and writer, without a broker."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder), VIEWS_FOLDER, memory_mb=128)
        writer = Writer(database)
        writer.open()
        events = [
            StoredEvent(
                number, 1_750_248_000_000_000, subjects.event(event.service, event.kind), event.to_bytes()
            )
            for number, event in enumerate(a_day(), start=1)
        ]
        writer.write(events, Position())
        with database.cursor() as cursor:
            found = {
                name: document(run_on(cursor, query, PARAMETERS.get(name, {})))
                for name, query in chosen([]).items()
                if not name.startswith(NOT_OURS)
            }
        database.close()
    return found


def main() -> None:
    """Writes every golden file."""
    for name, result in results().items():
        (GOLDEN / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

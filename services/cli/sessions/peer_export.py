"""The per-peer metrics log, page by page into a file that is complete or not there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TextIO

from schemas.errors import ConfigurationError, InternalError
from schemas.requests.queries import Rows
from services.cli.views.tables.rows_view import csv_lines
from services.client.client import Choir
from services.client.queries.query_file import shipped

QUERY = "peer_log"
PAGE_ROWS = 2_000
PLACE = ("stream_epoch", "sequence")
"""The last columns: where a page ends and the next one begins. They are not written."""


async def export_peers(
    mesh: Choir, folder: Path, output: Literal["csv", "json"], since: str, until: str
) -> tuple[Path, int]:
    """Writes `peers.csv` or `peers.jsonl` in `folder`; the path and the number of rows.

    Raises ConfigurationError if the folder cannot be written.
    """
    path = folder / ("peers.csv" if output == "csv" else "peers.jsonl")
    try:
        with complete_file(path) as sink:
            count = 0
            async for page in pages(mesh, since, until):
                sink.write(page_text(page, output, header=count == 0))
                count += page.row_count
    except OSError as error:
        raise ConfigurationError(f"out: {folder} cannot be written: {error.strerror}", field="out") from error
    return path, count


@contextmanager
def complete_file(path: Path) -> Iterator[TextIO]:
    """A file that takes its place only when all of it has been written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    with partial.open("w", encoding="utf-8", newline="") as sink:
        yield sink
    partial.replace(path)


async def pages(mesh: Choir, since: str, until: str) -> AsyncIterator[Rows]:
    """All rows in the order of the stream; the first page comes even if it is empty."""
    query = shipped(QUERY)
    epoch, sequence = 0, 0
    while True:
        given = {"since": since, "until": until, "count": str(PAGE_ROWS)}
        given |= {"epoch_from": str(epoch), "sequence_from": str(sequence)}
        page = await mesh.sql(query.statement, query.values(given), max_rows=PAGE_ROWS)
        yield page
        if not page.truncated and page.row_count < PAGE_ROWS:
            return
        if not page.rows:
            raise InternalError("a row is larger than a message of the broker")
        epoch, sequence = page.rows[-1][-2], page.rows[-1][-1]


def page_text(page: Rows, output: Literal["csv", "json"], *, header: bool) -> str:
    """One page as lines of the file."""
    names = page.names[: -len(PLACE)]
    rows = tuple(row[: -len(PLACE)] for row in page.rows)
    if output == "csv":
        return csv_lines(names if header else [], rows)
    return "".join(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)

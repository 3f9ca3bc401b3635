"""Rows of the event database as files. Pure."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from schemas.requests.queries import Rows


@dataclass(frozen=True)
class Export:
    """A kind of file: how it is written, and whether it is made of rows in Arrow."""

    write: Callable[[Rows], bytes]
    media_type: str
    arrow: bool = False


def as_csv(rows: Rows) -> bytes:
    """A header and a line for each row, as RFC 4180 has it; null is empty, lists and structs are JSON."""
    sink = io.StringIO()
    writer = csv.writer(sink)
    writer.writerow(rows.names)
    writer.writerows([_value(value) for value in row] for row in rows.rows)
    return sink.getvalue().encode()


def as_json(rows: Rows) -> bytes:
    """One document: the reply as it came."""
    return rows.model_dump_json(indent=2).encode() + b"\n"


def as_parquet(rows: Rows) -> bytes:
    """The rows with the types of the database."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pa.ipc.open_stream(base64.b64decode(rows.arrow or "")) as stream:
        table = stream.read_all()
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _value(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


EXPORTS = {
    "csv": Export(as_csv, "text/csv; charset=utf-8"),
    "json": Export(as_json, "application/json"),
    "parquet": Export(as_parquet, "application/vnd.apache.parquet", arrow=True),
}

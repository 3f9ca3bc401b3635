"""All requests of a run as columns: written by the generator processes as Parquet, read as numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from loadtest.generate.request_record import RequestRecord

Column = npt.NDArray[Any]

INTERRUPTED = "interrupted"
"""The run was ended while the request was under way."""

SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("process", pa.int32()),
        ("workload", pa.string()),
        ("intended_s", pa.float64()),
        ("sent_s", pa.float64()),
        ("first_s", pa.float64()),
        ("done_s", pa.float64()),
        ("error", pa.string()),
        ("tokens", pa.int32()),
        ("chunks", pa.int32()),
        ("results", pa.int32()),
        ("fetched", pa.bool_()),
        ("gaps_ms", pa.list_(pa.float32())),
    ]
)
CPU_SHARE = b"cpu_share"


@dataclass(frozen=True)
class Measurements:
    """One array for each column, all of the same length n, in the order in which requests were meant to
    start; `gaps_ms` holds an array for each request. `cpu_shares` is the part of a core that each generator
    process has used."""

    number: Column
    process: Column
    workload: Column
    intended_s: Column
    sent_s: Column
    first_s: Column
    done_s: Column
    error: Column
    tokens: Column
    chunks: Column
    results: Column
    fetched: Column
    gaps_ms: Column
    cpu_shares: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.number)

    def where(self, chosen: Column) -> Measurements:
        """Only the requests for which `chosen` is true."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in SCHEMA.names})

    @property
    def good(self) -> Column:
        """Which requests were answered."""
        return np.asarray(self.error == "")


def write_records(path: Path, records: Sequence[RequestRecord], process: int, cpu_share: float) -> None:
    """Writes one process's records; those that are open are put down as interrupted."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for record in records:
        for name in columns:
            columns[name].append(process if name == "process" else getattr(record, name))
        if record.open:
            columns["error"][-1] = INTERRUPTED
    schema = SCHEMA.with_metadata({CPU_SHARE: str(cpu_share).encode()})
    pq.write_table(pa.table(columns, schema=schema), path)


def read_records(paths: Sequence[Path]) -> Measurements:
    """All processes' records together."""
    tables = [pq.read_table(path) for path in paths]
    shares = tuple(float((table.schema.metadata or {}).get(CPU_SHARE, b"nan")) for table in tables)
    table = pa.concat_tables(
        [table.replace_schema_metadata(None) for table in tables] or [SCHEMA.empty_table()]
    )
    table = table.sort_by([("intended_s", "ascending"), ("number", "ascending")])
    arrays: dict[str, Any] = {name: _array(table.column(name)) for name in SCHEMA.names}
    return Measurements(**arrays, cpu_shares=shares)


def _array(column: pa.ChunkedArray) -> Column:
    if pa.types.is_list(column.type):
        rows = np.empty(len(column), dtype=object)
        rows[:] = [np.asarray(row, dtype=np.float64) for row in column.to_pylist()]
        return rows
    if pa.types.is_string(column.type):
        return np.array(column.to_pylist(), dtype=object)
    return np.asarray(column.to_numpy())

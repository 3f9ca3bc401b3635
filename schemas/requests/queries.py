"""Questions to the event database: one SQL statement on `choir.sql`, and the rows that it gives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from schemas.message import Message, Struct

Scalar = bool | int | float | str | None
RowFormat = Literal["json", "arrow"]
MAX_ROWS = 100_000


class Sql(Message):
    """One read-only statement, on `choir.sql`.

    `parameters` fill the placeholders `$name` of the statement. At most `max_rows` rows come back, and the
    statement is cut off after `timeout_s`; the service may allow less of both.
    """

    statement: Annotated[str, StringConstraints(min_length=1, max_length=65_536, pattern=r"\S")]
    parameters: Annotated[dict[str, Scalar], Field(default_factory=dict)]
    format: RowFormat = "json"
    max_rows: Annotated[int, Field(ge=0, le=MAX_ROWS)] = 10_000
    timeout_s: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] = 10.0


class RowColumn(Struct):
    """A column of the rows: its name, and its type as DuckDB calls it (`VARCHAR`, `BIGINT`, `DOUBLE[]`)."""

    name: str
    type: str


class Rows(Message):
    """What a statement gave.

    With format `json` each of `rows` has a value for each column: times are ISO 8601 (UTC), durations
    seconds, decimals numbers, numbers that JSON has not are null, bytes are base64, structs are objects.
    With `arrow` all rows are in `arrow`: an Arrow IPC stream in base64. `truncated` says that there were
    more rows than were asked for, or than one message carries.
    """

    kind: Literal["rows"] = "rows"
    columns: tuple[RowColumn, ...]
    rows: tuple[tuple[Any, ...], ...] = ()
    arrow: str | None = None
    row_count: Annotated[int, Field(ge=0)]
    truncated: bool = False
    elapsed_ms: Annotated[float, Field(ge=0)] = 0.0

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self.columns]

    def by_name(self) -> list[dict[str, Any]]:
        """Each row by the names of its columns."""
        names = self.names
        return [dict(zip(names, row, strict=True)) for row in self.rows]

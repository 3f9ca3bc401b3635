"""A query in a file: its question, its parameters and its statement. Pure.

The comment that a file begins with says what it asks and takes:

    -- question: Which requests took longest?
    -- parameters: since (TIMESTAMP = '1970-01-01'), count (BIGINT = 20), model (VARCHAR)
    -- columns:
    --   request_id   ...

A parameter without a default has to be given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import InvalidRequest
from schemas.requests.queries import Scalar

QUESTION = "-- question:"
PARAMETERS = "-- parameters:"
FOLDER = Path(__file__).resolve().parent
SHIPPED: dict[str, Path] = {
    path.stem: path for path in sorted(FOLDER.glob("*/*.sql"), key=lambda path: path.stem)
}
"""The queries that come with Choir, by their names."""
PARAMETER = re.compile(r"(\w+) \((\w+)(?: = ('[^']*'|[^)]*))?\)")


@dataclass(frozen=True)
class Parameter:
    """One placeholder: its name, its type in DuckDB, and its default; None if it has to be given."""

    name: str
    sql_type: str
    default: str | None


@dataclass(frozen=True)
class QueryFile:
    """What a file asks."""

    question: str
    parameters: tuple[Parameter, ...]
    statement: str

    def values(self, given: Mapping[str, str]) -> dict[str, Scalar]:
        """A value for each parameter. Raises InvalidRequest for one that is missing or that there is not."""
        names = {parameter.name for parameter in self.parameters}
        unknown = [name for name in given if name not in names]
        if unknown:
            known = ", ".join(sorted(names)) or "none"
            raise InvalidRequest(
                f"{unknown[0]}: the query has no such parameter; known: {known}", field=unknown[0]
            )
        missing = [p.name for p in self.parameters if p.default is None and p.name not in given]
        if missing:
            raise InvalidRequest(
                f"{missing[0]}: the query needs it: --param {missing[0]}=...", field=missing[0]
            )
        return {p.name: value_of(given.get(p.name, p.default or ""), p) for p in self.parameters}


def shipped(name: str) -> QueryFile:
    """The query of that name that comes with Choir. InvalidRequest if there is none."""
    if name not in SHIPPED:
        raise InvalidRequest(f"query: there is no {name!r}; known: {', '.join(SHIPPED)}", field="query")
    return read(SHIPPED[name])


def parse(text: str) -> QueryFile:
    """Reads a file's text; a file without a header is a statement without parameters."""
    lines = text.splitlines()
    question = next((line.removeprefix(QUESTION).strip() for line in lines if line.startswith(QUESTION)), "")
    taken = next((line.removeprefix(PARAMETERS) for line in lines if line.startswith(PARAMETERS)), "")
    parameters = tuple(
        Parameter(name, sql_type, None if default is None else default.strip("'"))
        for name, sql_type, default in (match.groups() for match in PARAMETER.finditer(taken))
    )
    return QueryFile(question, parameters, text)


def read(path: Path) -> QueryFile:
    """Reads a file. Raises InvalidRequest if there is none that can be read."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"file: {path} is no text", field="file") from error
    except OSError as error:
        raise InvalidRequest(f"file: {path} cannot be read: {error.strerror}", field="file") from error


def value_of(text: str, parameter: Parameter) -> Scalar:
    """A value as it was typed, as its type wants it. Raises InvalidRequest."""
    try:
        match parameter.sql_type:
            case "BIGINT" | "INTEGER":
                return int(text)
            case "DOUBLE":
                return float(text)
            case "BOOLEAN":
                return {"true": True, "false": False}[text.lower()]
    except (ValueError, KeyError) as error:
        raise InvalidRequest(
            f"{parameter.name}: {text!r} is no {parameter.sql_type}", field=parameter.name
        ) from error
    return text


def given_values(given: Iterable[str]) -> dict[str, str]:
    """`["since=2026-01-01"]` as names and values. Raises InvalidRequest for one without `=`."""
    pairs = [text.partition("=") for text in given]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise InvalidRequest(f"param: {name!r} is not NAME=VALUE", field="param")
    return {name: value for name, _, value in pairs}

"""The figures of a report as Markdown tables, whatever bench they are from: pure.

What stands alone is a row of the first table. Figures of the same things (streams, models, ways) share a
table: a column for each figure, or a row for each where that makes it longer than wide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from infra.docs.readmes import table

WHOLE_FROM = 100.0
LOADS = "load_"
"""Some benches tell the load among their figures; it stands above the tables."""

Column = dict[str, Any]


def figure_tables(raw: Mapping[str, Any]) -> list[str]:
    """The tables of all raw figures of a report."""
    rows: list[tuple[str, Any]] = []
    groups: list[dict[str, Column]] = []
    for name, value in _flat({name: raw[name] for name in raw if not name.startswith(LOADS)}):
        if isinstance(value, dict):
            _group_of(groups, value)[name] = value
        else:
            rows.append((name, value))
    shared = [group for group in groups if len(group) > 1]
    for group in groups:
        if len(group) == 1:
            rows += [
                (f"{name}, {key}", value) for name, column in group.items() for key, value in column.items()
            ]
    single = [table(("figure", "measured"), ((words(name), number(value)) for name, value in rows))]
    return (single if rows else []) + [_shared_table(group) for group in shared]


def words(name: str) -> str:
    """A name of the code as a reader has it, in a table cell."""
    return " ".join(name.replace("_", " ").replace("|", r"\|").split())


def number(value: object) -> str:
    """A figure in a table cell: three digits, or all before the point."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(number, value)) or "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= WHOLE_FROM or value.is_integer() else f"{value:#.3g}"
    return f"{value:,}" if isinstance(value, int) else words(str(value))


def _flat(raw: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """The figures, and the columns of figures; a column in a column comes by itself, named by its way."""
    for key, value in raw.items():
        name = f"{within}, {key}" if within else key
        if not (parts := _parts(value)):
            yield name, value
            continue
        if column := {key: part for key, part in parts.items() if not _parts(part)}:
            yield name, column
        yield from _flat({key: part for key, part in parts.items() if _parts(part)}, name)


def _parts(value: object) -> Column:
    """The figures that are in one: those of a mapping, and mappings of a list by their numbers."""
    if isinstance(value, Mapping):
        return {str(key): part for key, part in value.items()}
    if isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value):
        return {str(place): part for place, part in enumerate(value, start=1)}
    return {}


def _group_of(groups: list[dict[str, Column]], column: Column) -> dict[str, Column]:
    """The first group that is of the same things, or of more; else a new one."""
    for group in groups:
        if column.keys() <= next(iter(group.values())).keys():
            return group
    groups.append({})
    return groups[-1]


def _shared_table(group: dict[str, Column]) -> str:
    keys = list(next(iter(group.values())))
    if len(group) > len(keys):
        heads = ("", *map(words, keys))
        rows = [(words(name), *(_cell(column, key) for key in keys)) for name, column in group.items()]
    else:
        heads = ("", *map(words, group))
        rows = [(words(key), *(_cell(column, key) for column in group.values())) for key in keys]
    return table(heads, rows)


def _cell(column: Column, key: str) -> str:
    return number(column[key]) if key in column else ""

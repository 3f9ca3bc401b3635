"""The columns of an event's table, from the event's model: pure.

A nested model becomes columns with its field's name before theirs (`timings.total_duration_ns` ->
`timings_total_duration_ns`), a tuple of plain values a list, and whatever has no columns of its own is JSON.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from schemas.events import AnyEvent, Event

PLAIN: dict[type, tuple[str, pa.DataType]] = {
    bool: ("BOOLEAN", pa.bool_()),
    int: ("BIGINT", pa.int64()),
    float: ("DOUBLE", pa.float64()),
    str: ("VARCHAR", pa.string()),
}
JSON = "JSON"
TIMESTAMP = "TIMESTAMP"
HAPPENED_AT = "at_s"
LEFT_OUT = frozenset({"schema_version", "kind"})
"""The table says what these say."""


@dataclass(frozen=True)
class Column:
    """A column: where its value is in the message (`path`), and its type in DuckDB and in Arrow.

    `required` columns have a value in every event that the model accepts.
    """

    name: str
    path: tuple[str, ...]
    sql_type: str
    arrow_type: pa.DataType
    required: bool


def event_models() -> tuple[type[Event], ...]:
    """Every kind of event, from the union in `schemas.events`."""
    return get_args(get_args(AnyEvent)[0])


def kind_of(model: type[Event]) -> str:
    """The kind of a model: the name of its table."""
    return str(model.model_fields["kind"].default)


def columns_of(model: type[BaseModel]) -> tuple[Column, ...]:
    """The columns of an event's table, in the order of the model's fields."""
    return tuple(_columns(model, (), required=True))


def _columns(model: type[BaseModel], path: tuple[str, ...], required: bool) -> Iterator[Column]:
    for name, field in model.model_fields.items():
        if path or name not in LEFT_OUT:
            yield from _field_columns(field, (*path, name), required)


def _field_columns(field: FieldInfo, path: tuple[str, ...], required: bool) -> Iterator[Column]:
    annotation, optional = without_none(bare(field.annotation))
    required = required and not optional
    if path == (HAPPENED_AT,):
        yield Column("at", path, TIMESTAMP, pa.float64(), required)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _columns(annotation, path, required)
    else:
        sql_type, arrow_type = types_of(annotation)
        yield Column("_".join(path), path, sql_type, arrow_type, required and field.is_required())


def types_of(annotation: Any) -> tuple[str, pa.DataType]:
    """The types of a field that is no model, in DuckDB and in Arrow."""
    annotation, _ = without_none(bare(annotation))
    if get_origin(annotation) is Literal:
        kinds = {type(value) for value in get_args(annotation)}
        return PLAIN[kinds.pop()] if len(kinds) == 1 else (JSON, pa.string())
    if get_origin(annotation) in (tuple, list):
        return _types_of_list(get_args(annotation))
    return PLAIN.get(annotation, (JSON, pa.string()))


def _types_of_list(items: tuple[Any, ...]) -> tuple[str, pa.DataType]:
    if len(items) == 2 and items[1] is Ellipsis:
        sql_type, arrow_type = types_of(items[0])
        if sql_type not in (JSON, TIMESTAMP):
            return f"{sql_type}[]", pa.list_(arrow_type)
    return JSON, pa.string()


def bare(annotation: Any) -> Any:
    """A type without what `Annotated` says about it."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def without_none(annotation: Any) -> tuple[Any, bool]:
    """A type without None, and whether None was in it."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation, False
    members = [member for member in get_args(annotation) if member is not type(None)]
    optional = len(members) < len(typing.get_args(annotation))
    return (bare(members[0]), optional) if len(members) == 1 else (annotation, optional)

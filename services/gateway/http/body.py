"""The body of a request: read within its limits of size and time, parsed, and checked against a model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from itertools import accumulate
from math import isinf
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError, from_json
from starlette.requests import Request

from schemas.errors import InvalidRequest, PayloadTooLarge
from services.chassis.plain_words import first_fault
from services.chassis.process.garbage import unsearched
from services.gateway.http.connection.protocol import connection_of
from services.gateway.http.exchange import current_exchange, header_of
from services.gateway.settings import GatewaySection

MAX_DEPTH = 64
"""How deep a body may be nested."""
MANY_PARTS = 10_000
"""A body of more lists and objects is read without a search for garbage: that took most of the time."""
MAYBE_TOO_LARGE = re.compile(rb"(?<![0-9])[0-9]{309}|[0-9][eE][+]?[0-9]{3}")
"""What is there wherever a number is too large for a computer's. Digits are counted from the first of a run
only: from each of them a body of many runs would take a second of a MiB."""
A_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
STEPS = bytes.maketrans(b"[{]}", b"\1\1\0\0")
NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


class Body(BaseModel):
    """The body of a request of a dialect. Fields that nobody declared are passed over: clients send dozens.

    A type that is wrong is an error, as with numbers in quotation marks. Errors do not repeat the input.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True)


ItemT = TypeVar("ItemT")
Many = Annotated[list[ItemT], Field(fail_fast=True)]
"""A list in a body. What is wrong with its first wrong item is told, and no further one is looked at: a MiB
has half a million, and to say of each what is wrong takes seconds."""


def at_most(count: int) -> BeforeValidator:
    """Has a list or an object of more entries refused before any of them is looked at."""

    def check(given: Any) -> Any:
        if isinstance(given, list | dict) and len(given) > count:
            raise PydanticCustomError(
                "too_long", "it may have {max_length} entries at most", {"max_length": count}
            )
        return given

    return BeforeValidator(check)


BodyT = TypeVar("BodyT", bound=BaseModel)
EndpointT = TypeVar("EndpointT", bound=Callable[..., Any])
TAKES = "takes_body"
"""Where an endpoint says what body it takes."""


def takes(model: type[BaseModel]) -> Callable[[EndpointT], EndpointT]:
    """Says, for the description of the interface, against what an endpoint checks its body."""

    def said(endpoint: EndpointT) -> EndpointT:
        setattr(endpoint, TAKES, model)
        return endpoint

    return said


ASKS = "asks_query"
"""Where an endpoint says what its address may ask."""


def asks(model: type[BaseModel]) -> Callable[[EndpointT], EndpointT]:
    """Says, for the description of the interface, against what an endpoint checks the query of an address."""

    def said(endpoint: EndpointT) -> EndpointT:
        setattr(endpoint, ASKS, model)
        return endpoint

    return said


class Query(BaseModel):
    """What an address may ask behind its `?`. A name that nobody declared is an error: what was meant to
    narrow a list, and does not, shows too much."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


async def read_body(request: Request, limits: GatewaySection) -> bytes:
    """All bytes of a body. PayloadTooLarge as soon as there are too many, InvalidRequest if they come too
    slowly."""
    declared = header_of(request.scope, "content-length") or ""
    if declared.isdigit() and int(declared) > limits.max_body_bytes:
        raise _too_large(limits)
    connection = connection_of(request.scope)
    if connection is not None and connection.whole:
        return await _parts(request, limits)
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            return await _parts(request, limits)
    except TimeoutError as error:
        raise InvalidRequest(f"the body was not there within {limits.body_timeout_s:g} s") from error


async def _parts(request: Request, limits: GatewaySection) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        part, more = await next_part(request)
        size += len(part)
        if size > limits.max_body_bytes:
            raise _too_large(limits)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def next_part(request: Request) -> tuple[bytes, bool]:
    """The bytes of a body that have come since the last ones, and whether there are more of them.
    InvalidRequest if the body ends before its end."""
    message = await request.receive()
    more = message.get("more_body", False)
    connection = connection_of(request.scope)
    if message["type"] == "http.disconnect" or (more and connection is not None and connection.ended):
        raise InvalidRequest("the body ended before its end")
    return message.get("body", b""), more


def _too_large(limits: GatewaySection) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the body has more than {limits.max_body_bytes} bytes: send less, or raise max_body_bytes in "
        "section [gateway]"
    )


async def read_json(request: Request, limits: GatewaySection) -> dict[str, Any]:
    """A body that is one JSON object; one that is empty counts as an object without fields."""
    return parse_object(await read_body(request, limits))


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object. InvalidRequest for anything else, and for one that could not be written down again."""
    try:
        return json_object(data)
    except ValueError as error:
        raise InvalidRequest(f"the body {error}") from error


def json_object(data: bytes) -> dict[str, Any]:
    """A JSON object; nothing at all is one without fields. ValueError says what else the data is: `is no
    JSON`."""
    if not data.strip():
        return {}
    opened = data.count(b"{") + data.count(b"[")
    try:
        with unsearched() if opened > MANY_PARTS else nullcontext():
            value = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError("is no JSON") from error
    if not isinstance(value, dict):
        raise ValueError("must be a JSON object")
    if opened > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
    if MAYBE_TOO_LARGE.search(data) is not None and _has_too_large(value):
        raise ValueError("has a number that is too large")
    return value


def _has_too_large(value: object) -> bool:
    """Whether there is a number that JSON can say, and nobody can write down again."""
    if isinstance(value, float):
        return isinf(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(_has_too_large, inner))


def _depth(data: bytes) -> int:
    """How deep JSON is nested, counted by its brackets: many times faster than a walk through its values."""
    brackets = A_TEXT.sub(b"", data).translate(STEPS, delete=NO_BRACKETS)
    return max(accumulate(brackets, lambda depth, step: depth + 1 if step else depth - 1, initial=0))


def checked(fields: dict[str, Any], model: type[BodyT]) -> BodyT:
    """The fields of a body as what they should be. InvalidRequest names the first that is wrong; fields that
    nobody declared are counted, by name, with the request that is being answered."""
    try:
        body = model.model_validate(fields)
    except ValidationError as error:
        field, what = first_fault(error, whole="body")
        raise InvalidRequest(f"{field}: {what}", field=field) from error
    unknown = fields.keys() - _names(model)
    if unknown and (exchange := current_exchange.get()) is not None:
        for name in unknown:
            exchange.pass_over(name)
    return body


@cache
def _names(model: type[BaseModel]) -> frozenset[str]:
    """What the fields of a model are called in a body."""
    return frozenset(field.alias or name for name, field in model.model_fields.items())


def asked(request: Request, model: type[BodyT]) -> BodyT:
    """What an address asks behind its `?`. InvalidRequest names the first that is wrong."""
    return checked(dict(request.query_params), model)

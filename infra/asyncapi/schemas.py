"""The JSON schemas of all messages, as the AsyncAPI document shares them: one for each class, by its name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from schemas.broker.channels import CHANNELS, HEADERS
from schemas.broker.contents import Content, Payload
from schemas.commands import Gather, Generate, Summarize
from schemas.message import Message
from schemas.replies import ErrorReply
from schemas.subjects import KIND_HEADER

Schemas = dict[str, dict[str, Any]]

TEMPLATE = "#/components/schemas/{model}"
REFERENCE = re.compile(r'"#/components/schemas/([^"]+)"')
COMMANDS: tuple[Payload, ...] = (Generate, Gather, Summarize)


class Untitled(GenerateJsonSchema):
    """Leaves out the titles of fields, which say what their names say."""

    def field_title_should_be_set(self, schema: object) -> bool:
        """Never."""
        return False


def message_classes() -> tuple[type[Message], ...]:
    """Every class of messages that travels, once, those within other payloads among them."""
    found: list[type[Message]] = [ErrorReply]
    for channel in CHANNELS:
        for payload in (*channel.carries, *channel.replies):
            found += payload.within if isinstance(payload, Content) else (payload,)
    return tuple(dict.fromkeys(found))


def component_schemas() -> Schemas:
    """The schema of each class and of its parts, and after them those of the headers, by name.

    The header that tells replies apart has one value in each message, and so none here.
    """
    classes = message_classes()
    _, whole = models_json_schema(
        [(each, "validation") for each in classes], ref_template=TEMPLATE, schema_generator=Untitled
    )
    found: Schemas = whole["$defs"]
    for each in classes:
        for name in (name for name, field in each.model_fields.items() if field.exclude):
            del found[each.__name__]["properties"][name]
    for name in reachable(_said_by_services(), found):
        found[name].pop("additionalProperties", None)
    headers: Schemas = {
        name: {"type": "string", "description": why} for name, why in HEADERS.items() if name != KIND_HEADER
    }
    return dict(sorted(found.items())) | headers


def reachable(names: Iterable[str], found: Schemas) -> set[str]:
    """These names, and all that their schemas refer to."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += REFERENCE.findall(json.dumps(found[name]))
    return seen


def _said_by_services() -> set[str]:
    """What is no request and no command: a newer service may say more, and readers leave that out."""
    said: set[Payload] = {ErrorReply}
    for channel in CHANNELS:
        said.update(channel.replies)
        if not channel.replies:
            said.update(payload for payload in channel.carries if payload not in COMMANDS)
    return {payload.__name__ for payload in said if not isinstance(payload, Content)}

"""Subjects and what travels on them, as channels and messages of the AsyncAPI document."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from faststream.specification.asyncapi.utils import ref
from faststream.specification.asyncapi.v3_0_0.schema import Channel as ChannelObject
from faststream.specification.asyncapi.v3_0_0.schema import Message as MessageObject

from infra.docs.readmes import duration, size
from schemas import subjects
from schemas.broker import catalog
from schemas.broker.channels import ENUMS, HEADERS, PARAMETERS, REPLY_HEADERS, Channel, stream_of
from schemas.broker.contents import Content, Payload
from schemas.replies import ErrorReply, TokenChunk

JSON_TYPE = "application/json"


def message_object(payload: Payload, headers: Iterable[str]) -> MessageObject:
    """What a message is: its payload, shared by reference, and its headers."""
    properties: dict[str, Any] = {name: ref("components", "schemas", name) for name in headers}
    described: dict[str, Any] = {"type": "object", "properties": properties}
    if subjects.KIND_HEADER in properties and not isinstance(payload, Content):
        kind = payload.model_fields["kind"].default
        properties[subjects.KIND_HEADER] = {"const": kind, "description": HEADERS[subjects.KIND_HEADER]}
        described["required"] = [subjects.KIND_HEADER]
    extra = {"headers": described} if properties else {}
    if isinstance(payload, Content):
        return MessageObject(
            name=payload.name,
            description=payload.why,
            contentType=payload.media_type,
            payload=payload.schema,
            **extra,
        )
    return MessageObject(
        name=payload.__name__,
        contentType=JSON_TYPE,
        payload=ref("components", "schemas", payload.__name__),
        **extra,
    )


def name_of(payload: Payload) -> str:
    """The name of a message in its channel."""
    return payload.name if isinstance(payload, Content) else payload.__name__


def channel_object(channel: Channel) -> ChannelObject:
    """A subject: its parameters, what travels on it, and what is kept of it."""
    parameters = {
        name: {"description": PARAMETERS[name]} | ({"enum": list(ENUMS[name])} if name in ENUMS else {})
        for name in channel.parameters
    }
    return ChannelObject(
        address=channel.address,
        description=f"{channel.why}{kept(channel)}",
        messages={name_of(payload): message_object(payload, channel.headers) for payload in channel.carries},
        **({"parameters": parameters} if parameters else {}),
    )


def reply_object(channel: Channel) -> ChannelObject:
    """Where replies to a request come: its reply subject, which the client chooses."""
    streams = TokenChunk in channel.replies
    return ChannelObject(
        description=f"the reply subject of a request on {channel.address}"
        f"{': TokenChunks may come before the last one, and an empty message after it' if streams else ''}",
        messages={
            name_of(payload): message_object(payload, REPLY_HEADERS.get(payload, ()))
            for payload in replies_of(channel)
        },
    )


def reply_name(channel: Channel) -> str:
    """The name of the channel of replies to requests on this one."""
    return f"{channel.name}-reply"


def replies_of(channel: Channel) -> tuple[Payload, ...]:
    """What may come back; whoever answers with messages of ours may answer with an error."""
    ours = any(not isinstance(reply, Content) for reply in channel.replies)
    return (*channel.replies, ErrorReply) if ours else channel.replies


def kept(channel: Channel) -> str:
    """What the broker keeps of it, in words."""
    stream = stream_of(channel)
    if stream is not None:
        kind = {
            "work_queue": "until it is done",
            "limits": "written once" if stream.write_once else "as a log",
        }
        bounds = [kind[stream.retention], stream.storage, f"at most {size(stream.max_bytes)}"]
        if stream.max_age_s:
            bounds.append(duration(stream.max_age_s))
        return f". Kept in the stream {stream.name}: {', '.join(bounds)}"
    if channel.bucket and not channel.stored:
        bucket = next(spec for spec in catalog.BUCKETS if spec.name == channel.bucket)
        lives = f"a value lives {duration(bucket.ttl_s)}" if bucket.ttl_s else "values stay"
        bounds = [bucket.storage, f"at most {size(bucket.max_bytes)}", lives]
        return f". A key of the bucket {bucket.name}: {', '.join(bounds)}"
    return ""

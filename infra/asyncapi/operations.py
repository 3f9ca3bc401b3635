"""Who sends and who receives what, as operations of the AsyncAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from faststream.specification.asyncapi.utils import ref
from faststream.specification.asyncapi.v3_0_0.schema import Operation, Reference, Tag
from faststream.specification.asyncapi.v3_0_0.schema.operations import Action

from infra.asyncapi.channels import name_of, replies_of, reply_name
from schemas.broker import catalog
from schemas.broker.catalog import CLIENT_USER, Access
from schemas.broker.channels import Channel, matches, stream_of

SUPERVISED = tuple(one for one in catalog.ENDPOINTS if one.service == catalog.SUPERVISOR)
"""What supervisors answer, who are no service and have no row of permissions."""


def uses(channel: Channel, access: Access) -> Iterator[tuple[Action, str]]:
    """What a service may do on a channel, and how."""
    stream = stream_of(channel)
    if any(matches(channel.address, pattern) for pattern in access.publishes):
        yield Action.SEND, "publishes"
    if channel.bucket in access.buckets_written and not channel.stored:
        yield Action.SEND, "puts"
    if any(matches(channel.address, pattern) for pattern in access.subscribes):
        yield Action.RECEIVE, "listens"
    if access.service in channel.pulled_by:
        yield Action.RECEIVE, "pulls from the stream"
    if stream is not None and stream.name in access.reads:
        yield Action.RECEIVE, "reads single messages of the stream"
    if channel.bucket in access.buckets_read:
        yield Action.RECEIVE, "listens" if channel.stored else "reads the bucket"


def operations_on(channel: Channel) -> Iterator[tuple[str, Operation]]:
    """Who sends and who receives on a channel, each under a name of its own: `client-sends-ask`."""
    if any(endpoint.subject == channel.address for endpoint in catalog.ENDPOINTS):
        yield f"{CLIENT_USER}-sends-{channel.name}", operation(channel, CLIENT_USER, Action.SEND, ["asks"])
    if any(one.doors == channel.address.replace("{tenant}", "*") for one in SUPERVISED):
        who = catalog.SUPERVISOR
        yield f"{who}-receives-{channel.name}", operation(channel, who, Action.RECEIVE, ["listens"])
    for access in catalog.ACCESS:
        for action in Action:
            ways = [way for one, way in uses(channel, access) if one is action]
            if ways:
                yield (
                    f"{access.service}-{action.value}s-{channel.name}",
                    operation(channel, access.service, action, ways),
                )


def operation(channel: Channel, who: str, action: Action, ways: Iterable[str]) -> Operation:
    """One application's part in a channel; a request has a reply."""
    extra: dict[str, Any] = {}
    if channel.replies:
        name = reply_name(channel)
        messages = [ref("channels", name, "messages", name_of(payload)) for payload in replies_of(channel)]
        extra["reply"] = {"channel": ref("channels", name), "messages": messages}
    return Operation(
        action=action,
        channel=Reference(**ref("channels", channel.name)),
        summary=f"{who} {', '.join(ways)}: {channel.why}",
        messages=[
            Reference(**ref("channels", channel.name, "messages", name_of(each))) for each in channel.carries
        ],
        tags=[Tag(name=who)],
        **extra,
    )

"""A host that has joined: what it runs there, and telling the mesh of its processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import nats.errors
from nats.aio.client import Client

from infra.settings import DEMO_CONFIG, HostSettings
from schemas import subjects
from schemas.errors import ChoirError, ConfigurationError, MeshUnreachable, error_from_body
from schemas.nodes.joining import Enrol, Enrolled, HostedInstance
from schemas.replies import ErrorReply
from services.client.finding.membership import Membership

PATIENCE_S = 60.0
"""For a mesh whose broker, or whose supervisor, is just starting."""
REPLY_TIMEOUT_S = 20.0
ASK_AGAIN_S = 0.5


def settings_of_member(settings: HostSettings, member: Membership) -> HostSettings:
    """The settings of a host that has joined: no broker of its own, and only what it was invited to run.

    The demo's agents, which other hosts run too, are called after this host besides. ConfigurationError if
    choir.toml wants a broker here.
    """
    said = settings.broker.model_fields_set
    if settings.broker.embedded and {"embedded", "host"} & said:
        raise ConfigurationError(
            f"this host has joined the mesh at {member.url} as {member.name}, and section [broker] wants a "
            f"broker "
            "here: leave embedded and host out, or leave that mesh with `choir join --leave`",
            field="broker",
        )
    nothing = {"replicas": 0}
    mine = set(member.services)
    changes: dict[str, object] = {
        "broker": settings.broker.model_copy(update={"embedded": False}),
        "mesh": member.section,
        **{
            name: getattr(settings, name).model_copy(update=nothing)
            for name in ("router", "aggregator", "summarizer")
            if name not in mine
        },
        **{
            name: getattr(settings, name).model_copy(update={"enabled": False})
            for name in ("metrics", "gateway", "modelstore")
            if name not in mine
        },
        "tenants": (),
    }
    if settings.config == DEMO_CONFIG:
        changes["agents"] = tuple(
            agent.model_copy(update={"name": f"{agent.name}-{member.name}"}) for agent in settings.agents
        )
    return settings.model_copy(update=changes)


async def enrol(client: Client, host: str, said: Enrol, say: Callable[[str], None]) -> tuple[str, ...]:
    """Tells the mesh which processes this host runs, and returns when they are let in, and there are queues
    for the models that they serve: a line for each of its ensembles that does not count.

    Raises its typed error, or MeshUnreachable if no supervisor of a broker answers in time.
    """
    while True:
        reply = await _enrol(client, host, said, say)
        if isinstance(reply, Enrolled):
            return reply.problems
        earlier = in_words_without(reply.field or "", said)
        if earlier is None:
            raise _with_way_out(reply)
        said = earlier


def in_words_without(field: str, said: Enrol) -> Enrol | None:
    """The same for a broker's host of an earlier Choir, which does not know a field; None if that is not why
    it refuses."""
    if field.endswith("takes_workers"):
        return said.model_copy(update={"instances": tuple(map(_in_earlier_words, said.instances))})
    if field.endswith("keyless"):
        return said.model_copy(update={"instances": tuple(map(_with_keys, said.instances))})
    if field == "ensembles" and said.ensembles:
        return said.model_copy(update={"ensembles": ()})
    return None


def _in_earlier_words(instance: HostedInstance) -> HostedInstance:
    """For a broker's host of an earlier Choir, which lets agents that take workers take any work."""
    if not instance.takes_workers:
        return instance
    return instance.model_copy(update={"models": None, "takes_workers": False})


def _with_keys(instance: HostedInstance) -> HostedInstance:
    """For one that has gateways ask everything by themselves."""
    return instance.model_copy(update={"keyless": False})


async def _enrol(client: Client, host: str, said: Enrol, say: Callable[[str], None]) -> Enrolled | ChoirError:
    """Says it until somebody answers; why it is refused, if it is."""
    request, end_s, told = said.to_bytes(), time.monotonic() + PATIENCE_S, False
    while True:
        try:
            reply = await client.request(subjects.enrol(host), request, timeout=REPLY_TIMEOUT_S)
            break
        except nats.errors.Error as error:
            if client.is_closed or time.monotonic() > end_s:
                raise MeshUnreachable(
                    "the broker is there, and nobody lets the processes of this host in: is `choir up` "
                    "running "
                    "on the host of the broker?"
                ) from error
            if not told:
                told = True
                say("waits for the host of the broker")
            await asyncio.sleep(ASK_AGAIN_S)
    if reply.headers and subjects.ERROR_CODE_HEADER in reply.headers:
        return error_from_body(ErrorReply.read(reply.data).error)
    return Enrolled.read(reply.data)


def _with_way_out(error: ChoirError) -> ChoirError:
    return ConfigurationError(f"this host is not let in: {error.message}", field=error.field)

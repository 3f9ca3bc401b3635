"""Hosts and instances that are taken out of work: what the router says of them, and asks of them no more."""

from __future__ import annotations

import socket
from typing import Any

from nats.aio.client import Client

from infra.testing.mesh import eventually
from schemas import subjects
from schemas.nodes.cordons import CordonsReply
from schemas.nodes.lease import NodeLease
from schemas.replies import NodesReply, StatusReply
from services.router.tests.front import Front, open_front


async def cordons(front: Front, **request: Any) -> list[tuple[str, bool]]:
    """Who gets nothing new after a request, and whether it is drained."""
    reply = await front.request(subjects.CORDON, **request)
    return [(one.whom, one.drain) for one in CordonsReply.model_validate_json(reply.data).cordons]


async def agent_of(front: Front) -> NodeLease:
    """The lease of the agent, as clients see it."""
    nodes = NodesReply.model_validate_json((await front.request(subjects.NODES)).data).nodes
    return next(node for node in nodes if node.service == "agent")


async def is_asked(front: Front) -> bool:
    """Whether a request for the agent's model is let in."""
    reply = await front.request(subjects.SUBMIT, prompt="hi", model="alpha")
    return subjects.ERROR_CODE_HEADER not in (reply.headers or {})


async def test_a_cordoned_agent_is_asked_no_more_and_the_way_back_is_told(front: Front) -> None:
    assert await cordons(front, action="cordon", instance="agent-1") == [("agent-1", False)]
    error = await front.refused(subjects.SUBMIT, prompt="hi", model="alpha")
    assert error.code == "unknown_model"
    assert "agent-1 is cordoned: `choir nodes uncordon --instance agent-1` lets it in again" in error.message
    node = await agent_of(front)
    assert node.cordon == "cordon" and not node.drained
    status = StatusReply.model_validate_json((await front.request(subjects.STATUS)).data)
    assert status.slots == 0
    assert [line for line in status.problems if "cordoned" in line] == [
        "agent-1 is cordoned, by local: `choir nodes uncordon --instance agent-1` lets it in again"
    ]
    assert await cordons(front, action="uncordon", instance="agent-1") == []
    await eventually(lambda: is_asked(front))


async def test_a_host_is_drained_whatever_router_is_asked_and_the_next_one_knows(
    front: Front, connection: Client, mesh_url: str
) -> None:
    host = socket.gethostname()
    await cordons(front, action="cordon", instance="agent-1")
    assert await cordons(front, action="drain", host=host) == [(host, True), ("agent-1", False)]
    async with open_front(connection, mesh_url) as other:
        node = await agent_of(other)
        assert node.cordon == "drain"
        assert [model.problem is not None for model in node.models] == [True] * 3
        assert await cordons(other) == [(host, True), ("agent-1", False)]


async def test_a_name_that_nobody_has_is_refused_with_those_that_there_are(front: Front) -> None:
    unknown = await front.refused(subjects.CORDON, action="cordon", instance="agent-7")
    assert (unknown.code, unknown.field) == ("invalid_request", "instance")
    assert "there are: agent-1" in unknown.message
    no_agent = await front.refused(subjects.CORDON, action="drain", host="elsewhere")
    assert no_agent.field == "host" and f"hosts: {socket.gethostname()}" in no_agent.message
    in_work = await front.refused(subjects.CORDON, action="uncordon", host=socket.gethostname())
    assert in_work.message == f"host: {socket.gethostname()} is not cordoned; cordoned: none"
    both = await front.refused(subjects.CORDON, action="cordon", host="a", instance="b")
    assert (both.field, both.code) == ("host", "invalid_request")

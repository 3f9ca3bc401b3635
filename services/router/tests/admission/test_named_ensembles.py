"""An ensemble with a name of its own is asked as a model is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import nats.errors
import pytest
import pytest_asyncio
from nats.aio.client import Client

from infra.broker.broker import Broker
from infra.testing.mesh import eventually, settled
from infra.testing.plugin import SpawnService, connect
from schemas import subjects
from schemas.commands import Gather
from schemas.ensembles.kept import EnsemblesReply
from schemas.ensembles.named import Ensemble
from schemas.replies import ModelsReply, StatusReply
from services.chassis.registry.ensembles import Ensembles
from services.router.tests.front import Front, open_front

COUNCIL = Ensemble(name="council", members=("alpha", "beta"), strategies=("weighted", "majority"), quorum=1)
ALL = Ensemble(name="all")
GHOSTS = Ensemble(name="ghosts", members=("nobody",))


@pytest_asyncio.fixture
async def front(connection: Client, mesh_url: str) -> AsyncIterator[Front]:
    async with open_front(connection, mesh_url, ensembles=(COUNCIL, ALL, GHOSTS)) as opened:
        yield opened


async def test_a_request_to_one_is_a_request_to_its_members(front: Front) -> None:
    await front.request(subjects.SUBMIT, prompt="Why?", model="council", request_id="to-the-council")
    await settled(front.client)
    gather = await front.command("to-the-council")
    assert isinstance(gather, Gather)
    assert (gather.members, gather.strategies) == (COUNCIL.members, COUNCIL.strategies)
    assert gather.quorum == 1

    # asked again under its id it is the same request
    await front.request(subjects.SUBMIT, prompt="Why?", model="council", request_id="to-the-council")
    assert await front.stored() == 1


async def test_without_members_all_models_are_asked(front: Front) -> None:
    await front.request(subjects.SUBMIT, prompt="Why?", model="all", quorum=3, request_id="to-all")
    gather = await front.command("to-all")
    assert isinstance(gather, Gather)
    assert (gather.members, gather.quorum) == (("alpha", "beta", "gamma"), 3)


async def test_auto_is_a_model_of_the_router_s_own(front: Front) -> None:
    for number, name in enumerate(("choir/auto", "auto")):
        await front.request(subjects.SUBMIT, prompt="Why?", model=name, request_id=f"auto-{number}")
        gather = await front.command(f"auto-{number}")
        assert isinstance(gather, Gather)
        assert (gather.members, gather.strategies) == (("alpha", "beta", "gamma"), ("auto",))


async def test_models_and_ensembles_are_listed_together(front: Front) -> None:
    reply = ModelsReply.read((await front.request(subjects.MODELS)).data)
    assert [model.name for model in reply.models] == ["alpha", "beta", "gamma"]
    assert reply.ensembles == (ALL, COUNCIL, GHOSTS)


async def test_operators_make_one_that_can_be_asked_at_once_and_forget_it(front: Front) -> None:
    pair = {"name": "pair", "members": ["alpha", "gamma"]}
    added = await front.request(subjects.ENSEMBLES, action="add", ensemble=pair)
    (entry,) = EnsemblesReply.read(added.data).ensembles
    assert (entry.ensemble.members, entry.words[0].operators) == (("alpha", "gamma"), True)
    await front.request(subjects.SUBMIT, prompt="Why?", model="pair", request_id="to-the-pair")
    gather = await front.command("to-the-pair")
    assert isinstance(gather, Gather) and gather.members == ("alpha", "gamma")

    listed = EnsemblesReply.read((await front.request(subjects.ENSEMBLES)).data).ensembles
    assert [one.ensemble.name for one in listed] == ["all", "council", "ghosts", "pair"]
    await front.request(subjects.ENSEMBLES, action="remove", name="pair")
    refused = await front.refused(subjects.SUBMIT, prompt="Why?", model="pair")
    assert refused.code == "unknown_model"
    unknown = await front.refused(subjects.ENSEMBLES, action="remove", name="pair")
    assert (unknown.code, unknown.field) == ("invalid_request", "name")
    of_a_file = await front.refused(subjects.ENSEMBLES, action="add", ensemble={"name": "council"})
    assert of_a_file.field == "ensemble.name" and "choir ensembles rm council" in of_a_file.message


async def test_routers_that_run_and_one_that_comes_late_have_the_same(
    front: Front, connection: Client, mesh_url: str
) -> None:
    changed, other = COUNCIL.model_copy(update={"quorum": 2}), Ensemble(name="other")
    async with open_front(connection, mesh_url, instance="router-2", ensembles=(changed, other)) as late:
        await front.request(subjects.ENSEMBLES, action="add", ensemble={"name": "pair"})
        wanted = (changed, other, Ensemble(name="pair"))
        await eventually(lambda: front.router.ensembles.all == late.router.ensembles.all == wanted)


async def test_a_router_has_what_was_said_while_it_had_no_broker(
    own_broker: Broker, spawn_service: SpawnService
) -> None:
    host = await connect(own_broker.url)
    await Ensembles(host).declare("attic", (COUNCIL,))
    spawn_service("router", "router-1", url=own_broker.url)

    async def listed() -> tuple[Ensemble, ...]:
        try:
            reply = await host.request(subjects.MODELS, b"", timeout=2)
        except nats.errors.Error:
            return ()
        return ModelsReply.read(reply.data).ensembles

    async def said(*ensembles: Ensemble) -> bool:
        try:
            return await Ensembles(host).declare("attic", ensembles) == ()
        except nats.errors.Error:
            return False

    async def is_listed(*ensembles: Ensemble) -> bool:
        return await listed() == ensembles

    await eventually(lambda: is_listed(COUNCIL))
    own_broker.kill()
    await own_broker.restart()
    await eventually(lambda: is_listed(COUNCIL))
    await eventually(lambda: said(ALL))
    await eventually(lambda: is_listed(ALL))
    await host.close()


async def test_two_choir_toml_that_disagree_are_a_problem_that_the_status_tells(front: Front) -> None:
    otherwise = COUNCIL.model_copy(update={"members": ("gamma",)})
    (told,) = await Ensembles(front.client).declare("cellar", (otherwise,))
    await eventually(lambda: front.router.ensembles.disputes)
    status = StatusReply.read((await front.request(subjects.STATUS)).data)
    assert [line for line in status.problems if "council" in line] == [told]
    assert COUNCIL in ModelsReply.read((await front.request(subjects.MODELS)).data).ensembles


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        ({"raw": {"text": "Once"}}, "raw"),
        ({"embed": {"inputs": ["x"]}}, "embed"),
        ({"prompt": "x", "sampling": {"n": 2}}, "sampling.n"),
        ({"prompt": "x", "summarize_with": ["alpha"]}, "summarize_with"),
    ],
)
async def test_what_only_one_model_does_is_refused(front: Front, ask: dict[str, object], field: str) -> None:
    refused = await front.refused(subjects.SUBMIT, model="council", **ask)
    assert (refused.code, refused.field) == ("invalid_request", field)
    assert "council is an ensemble" in refused.message


async def test_a_member_that_nobody_serves_is_named(front: Front) -> None:
    refused = await front.refused(subjects.SUBMIT, model="ghosts", prompt="x")
    assert (refused.code, refused.field) == ("unknown_model", "models.0")
    assert "nobody" in refused.message

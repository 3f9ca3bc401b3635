"""An ensemble with a name of its own is asked as a model is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from nats.aio.client import Client

from schemas import subjects
from schemas.commands import Gather
from schemas.ensembles.named import Ensemble
from schemas.replies import ModelsReply
from services.chassis.tests.mesh import settled
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
    assert reply.ensembles == (COUNCIL, ALL, GHOSTS)


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

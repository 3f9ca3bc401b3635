"""Orders to load and unload models on demand: which agents get them, and who is refused with what reason."""

from __future__ import annotations

import pytest
from nats.aio.msg import Msg

from infra.testing.mesh import eventually
from schemas import subjects
from schemas.errors import ChoirError, ErrorBody, InvalidRequest, ModelUnusable, UnknownModel
from schemas.nodes.lease import NodeLease, OnDemand, ServedModel
from schemas.nodes.loading import LoadedAt, LoadedReply, ManageLoaded
from schemas.tests.golden.shared import LEASE
from services.router.endpoints.loading import chosen_of
from services.router.tests.front import Front

TOO_LARGE = ErrorBody(code="model_unusable", message="large takes 9.00 GB, and there are 4.00 GB")
AWAY = ErrorBody(code="not_ready", message="attic is cordoned")


def demanded(
    name: str, state: str = "unloaded", gb: int = 1, problem: ErrorBody | None = None
) -> ServedModel:
    how = OnDemand.model_validate({"state": state, "memory_bytes": gb * 10**9, "budget_bytes": 4 * 10**9})
    return ServedModel(name=name, backend="llama_cpp", slots=2, on_demand=how, problem=problem)


def agent(instance: str, *models: ServedModel) -> NodeLease:
    return LEASE.model_copy(update={"instance": instance, "models": models})


NODES = (
    agent("attic", demanded("small"), demanded("other", "loaded", 3), demanded("away", problem=AWAY)),
    agent("cellar", demanded("small"), demanded("large", gb=9, problem=TOO_LARGE)),
    agent("den", ServedModel(name="fixed", backend="llama_cpp", slots=1)),
)


def chosen(action: str, model: str, instance: str | None = None) -> tuple[str, ...]:
    order = ManageLoaded.model_validate({"action": action, "model": model, "instance": instance})
    return chosen_of(order, NODES)


def test_a_model_is_loaded_where_it_is_or_where_room_is_and_unloaded_wherever_it_is() -> None:
    assert chosen("load", "small") == ("cellar",)
    assert chosen("load", "small", "attic") == ("attic",)
    assert chosen("load", "other") == chosen("unload", "other") == ("attic",)
    assert chosen("unload", "small") == ()


@pytest.mark.parametrize(
    ("model", "instance", "error", "told"),
    [
        ("large", None, ModelUnusable, "9.00 GB, and there are 4.00 GB"),
        ("away", None, InvalidRequest, "attic is cordoned"),
        ("fixed", None, InvalidRequest, r"fixed is not on demand: .* \(den\)"),
        ("nothing", None, UnknownModel, "on demand are: away, large, other, small"),
        ("small", "den", InvalidRequest, "den does not have small on demand; that do: attic, cellar"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_reason(
    model: str, instance: str | None, error: type[ChoirError], told: str
) -> None:
    with pytest.raises(error, match=told):
        chosen("load", model, instance)


async def test_an_order_reaches_its_agent_and_the_answer_whoever_gave_it(front: Front) -> None:
    lease = agent("attic", demanded("small"))
    given: list[ManageLoaded] = []

    async def answer(msg: Msg) -> None:
        given.append(ManageLoaded.read(msg.data))
        how = LoadedAt(instance="attic", on_demand=demanded("small", "loaded").on_demand)
        await msg.respond(LoadedReply(model="small", agents=(how,)).to_bytes())

    await front.client.subscribe(subjects.load_order("attic"), cb=answer)
    bucket = await front.client.jetstream().key_value(subjects.NODES_BUCKET)
    await bucket.put(subjects.node_key("agent", "attic"), lease.to_bytes())

    async def loaded() -> LoadedReply | None:
        reply = await front.request(subjects.LOAD, action="load", model="small", keep_alive_s=60.0)
        return None if subjects.ERROR_HEADER in (reply.headers or {}) else LoadedReply.read(reply.data)

    told = await eventually(loaded)
    assert [one.words for one in told.agents] == ["loaded at attic"]
    assert (given[-1].instance, given[-1].keep_alive_s) == ("attic", 60.0)
    refused = await front.refused(subjects.LOAD, action="unload", model="small", keep_alive_s=1.0)
    assert refused.field == "keep_alive_s"

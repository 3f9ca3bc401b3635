"""How many workers can be registered, and what can be done when there is no room for more."""

from __future__ import annotations

from typing import Any

import pytest

from infra.testing.broker.lost_words import LostWords
from infra.testing.mesh import events, eventually
from schemas import subjects
from schemas.errors import ErrorBody
from schemas.events import WorkerChanged
from schemas.nodes.workers import WorkersReply
from services.router.tests.front import Front


def entry(worker_id: str) -> dict[str, Any]:
    """What a client says to register a worker."""
    worker = {"id": worker_id, "type": "ollama", "host": "127.0.0.1", "port": 11434, "model": "omega"}
    return {"action": "add", "worker": worker}


async def add(front: Front, *ids: str) -> None:
    """Registers workers, and returns when the router lists them."""
    for worker_id in ids:
        WorkersReply.model_validate_json((await front.request(subjects.WORKER, **entry(worker_id))).data)

    async def known() -> bool:
        return set(ids) <= set(await listed(front))

    await eventually(known)


async def listed(front: Front) -> list[str]:
    """The workers that `choir worker list` shows."""
    reply = await front.request(subjects.WORKER, action="list")
    return [status.worker.id for status in WorkersReply.model_validate_json(reply.data).workers]


async def refused(front: Front, worker_id: str) -> ErrorBody:
    """What is said when a worker cannot be registered."""
    return await front.refused(subjects.WORKER, **entry(worker_id))


async def test_workers_can_be_removed_from_a_full_bucket_and_what_is_full_is_said(front: Front) -> None:
    await add(front, "one", "two")
    js = front.client.jetstream()
    held = await js.stream_info(subjects.bucket_stream(subjects.WORKERS_BUCKET))
    held.config.max_bytes = held.state.bytes
    await js.update_stream(held.config)

    error = await refused(front, "three")
    assert error.code == "overloaded"
    assert "no room for more workers: remove one that is not needed (`choir worker remove" in error.message

    removed = await front.request(subjects.WORKER, action="remove", id="one")
    assert WorkersReply.model_validate_json(removed.data).workers[0].worker.id == "one"

    async def gone() -> bool:
        return "one" not in await listed(front)

    await eventually(gone)


async def test_only_so_many_workers_are_registered_and_the_way_out_is_named(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.router.endpoints.workers.MOST_WORKERS", 2)
    await add(front, "one", "two")
    error = await refused(front, "three")
    assert (error.code, error.field) == ("invalid_request", "worker.id")
    assert "2 workers are registered, and there may be no more: remove one" in error.message
    # One that is there can still be changed, and one removed makes room
    await front.request(subjects.WORKER, **entry("two") | {"replace": True})
    await front.request(subjects.WORKER, action="remove", id="one")

    async def gone() -> bool:
        return await listed(front) == ["two"]

    await eventually(gone)
    await add(front, "three")


async def test_an_entry_that_cannot_be_read_can_be_removed_and_replaced(front: Front) -> None:
    bucket = await front.client.jetstream().key_value(subjects.WORKERS_BUCKET)
    for worker_id in ("one", "two"):
        await bucket.put(subjects.worker_key(worker_id), b'{"what": "is this"}')
    assert (await front.refused(subjects.WORKER, action="cordon", id="one")).code == "invalid_request"
    assert "that cannot be read" in (await refused(front, "one")).message

    removed = await front.request(subjects.WORKER, action="remove", id="one")
    assert WorkersReply.model_validate_json(removed.data).workers == ()
    await front.request(subjects.WORKER, **entry("two") | {"replace": True})

    async def mended() -> bool:
        return await listed(front) == ["two"]

    await eventually(mended)


async def test_a_worker_takes_the_name_of_a_model_that_agents_serve_only_if_that_is_meant(
    front: Front,
) -> None:
    """It would get the prompts of that model, and give its answers."""
    await add(front, "one")
    for takes in ({"model": "alpha"}, {"served_as": "alpha"}):
        taking = entry("two")
        taking["worker"] |= takes
        error = await front.refused(subjects.WORKER, **taking)
        assert (error.code, error.field) == ("invalid_request", "worker.served_as")
        assert "agent-1 serves by itself" in error.message
    turned = entry("one") | {"replace": True}
    turned["worker"] |= {"served_as": "alpha"}
    assert (await front.refused(subjects.WORKER, **turned)).field == "worker.served_as"
    assert await listed(front) == ["one"]

    shared = WorkersReply.model_validate_json(
        (await front.request(subjects.WORKER, **turned, share=True)).data
    )
    assert shared.workers[0].worker.name == "alpha"


async def test_of_two_who_change_a_worker_at_once_the_slower_is_told_to_try_again(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(front, "one")
    bucket = await front.client.jetstream().key_value(subjects.WORKERS_BUCKET)

    async def another_is_faster() -> None:
        entry = await bucket.get(subjects.worker_key("one"))
        await front.client.publish(
            subjects.bucket_key(subjects.WORKERS_BUCKET, subjects.worker_key("one")), entry.value or b""
        )
        await eventually(lambda: changed(entry.revision))

    async def changed(revision: int | None) -> bool:
        return (await bucket.get(subjects.worker_key("one"))).revision != revision

    LostWords(monkeypatch, subjects.WORKERS_BUCKET, 1, stored=False, meanwhile=another_is_faster)
    error = await front.refused(subjects.WORKER, action="cordon", id="one")
    assert (error.code, error.field) == ("invalid_request", "id")
    assert "'one' was changed by somebody else at the same time; try again" in error.message


async def test_whose_prompts_go_elsewhere_is_told_with_who_did_it(front: Front) -> None:
    await add(front, "one")
    turned = entry("one") | {"replace": True}
    turned["worker"] |= {"host": "10.9.9.9"}
    await front.request(subjects.WORKER, **turned)
    await front.request(subjects.WORKER, action="cordon", id="one")
    await front.request(subjects.WORKER, action="remove", id="one")
    await front.mesh.events.flush()

    async def told() -> list[WorkerChanged]:
        found = [event for event in await events(front.client) if isinstance(event, WorkerChanged)]
        return found if len(found) == 4 else []

    first, second, *rest = await eventually(told)
    assert (first.action, first.worker, first.model, first.tenant) == ("add", "one", "omega", "local")
    assert (second.url, second.instead_of) == ("http://10.9.9.9:11434", "http://127.0.0.1:11434")
    assert [event.action for event in rest] == ["cordon", "remove"]

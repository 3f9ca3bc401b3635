"""Submit, fetch and cancel; and who waits longest."""

from __future__ import annotations

import asyncio

import pytest

from infra.testing.mesh import events, eventually, in_time
from schemas import subjects
from schemas.commands import Generate
from schemas.errors import WorkerFailed
from schemas.events import RequestCancelled
from schemas.replies import Cancelled, Result
from services.chassis.work.delivery import Delivery, Retry
from services.chassis.work.tests.test_loop import CommandHandler, working
from services.router.endpoints import handlers
from services.router.tests.front import Front


async def submit(front: Front, request_id: str = "r1") -> None:
    await front.request(subjects.SUBMIT, prompt="hi", model="alpha", request_id=request_id)


async def fetch(front: Front, request_id: str = "r1", wait_s: float = 0) -> Result:
    reply = await front.request(subjects.FETCH, request_id=request_id, wait_s=wait_s)
    return Result.model_validate_json(reply.data)


async def test_a_result_can_be_fetched_again_and_again(front: Front) -> None:
    await submit(front)
    await front.finish("r1")
    first = await fetch(front)
    assert first.text == "the giraffe"
    assert await fetch(front) == first


async def test_a_result_that_is_not_there_yet_can_be_waited_for(front: Front) -> None:
    await submit(front)
    waiting = asyncio.create_task(fetch(front, wait_s=30))
    await front.client.flush()
    await front.finish("r1")
    assert (await waiting).text == "the giraffe"


async def test_who_does_not_want_to_wait_is_told_that_it_is_not_ready(front: Front) -> None:
    await submit(front)
    error = await front.refused(subjects.FETCH, request_id="r1")
    assert (error.code, error.retry_after_s) == ("not_ready", 1.0)


async def test_a_request_that_nobody_knows_is_unknown(front: Front) -> None:
    for subject in (subjects.FETCH, subjects.CANCEL):
        error = await front.refused(subject, request_id="never-asked")
        assert (error.code, error.field) == ("unknown_request", "request_id")


async def test_a_cancelled_request_has_that_for_its_result_and_its_workers_are_told(front: Front) -> None:
    told = await front.client.subscribe(subjects.cancel_signal("r1"))
    asked = asyncio.create_task(front.ask(prompt="hi", model="alpha", request_id="r1"))
    await front.command("r1")
    reply = await front.request(subjects.CANCEL, request_id="r1")

    assert Cancelled.model_validate_json(reply.data).cancelled
    await told.next_msg(60)
    result = await asked
    assert result.error is not None and result.error.code == "cancelled"
    assert await fetch(front) == result

    async def told_of() -> bool:
        return any(isinstance(event, RequestCancelled) for event in await events(front.client))

    await eventually(told_of)


async def test_a_result_that_was_there_first_stays(front: Front) -> None:
    await submit(front)
    await front.finish("r1")
    reply = await front.request(subjects.CANCEL, request_id="r1")
    assert not Cancelled.model_validate_json(reply.data).cancelled
    assert (await fetch(front)).text == "the giraffe"


async def test_a_second_cancellation_changes_nothing(front: Front) -> None:
    await submit(front)
    first = await front.request(subjects.CANCEL, request_id="r1")
    second = await front.request(subjects.CANCEL, request_id="r1")
    assert Cancelled.model_validate_json(first.data).cancelled
    assert not Cancelled.model_validate_json(second.data).cancelled


async def test_when_nobody_answers_in_time_the_router_says_so(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "OVERTIME_S", 0.05)
    result = await front.ask(prompt="hi", model="alpha", request_id="r1", timeout_s=0.2)
    assert result.error is not None and result.error.code == "deadline_exceeded"
    assert await fetch(front) == result


async def test_a_client_is_told_what_its_request_failed_with_when_it_was_not_tried_again_in_time(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "OVERTIME_S", 0.05)

    async def fail(_command: Generate, _delivery: Delivery) -> None:
        raise Retry(WorkerFailed("worker mac-1: it hung up"), delay_s=60)

    async def attempt(request_id: str, timeout_s: float) -> Result:
        return await front.ask(prompt="hi", model="alpha", request_id=request_id, timeout_s=timeout_s)

    def tried(result: Result) -> bool:
        return result.error is not None and "hung up" in result.error.message

    async with working(front.mesh, CommandHandler(fail)):
        result = await in_time(attempt, tried, 1.0)
    assert result.error is not None and result.error.code == "worker_failed"
    assert result.error.message.startswith("worker mac-1: it hung up; no result within ")
    assert await fetch(front, result.request_id) == result

"""A result that is no longer kept is told as that."""

from __future__ import annotations

import time

from nats.js import JetStreamContext
from ulid import ULID

from schemas import subjects
from services.chassis.identity import new_id
from services.router.tests.front import Front


async def submit_and_finish(front: Front, request_id: str) -> None:
    await front.request(subjects.SUBMIT, prompt="hi", model="alpha", request_id=request_id)
    await front.finish(request_id)


async def evict_all_but_the_last(front: Front) -> None:
    """What the router does when the stream of results is nearly full."""
    js = JetStreamContext(front.client)
    last = (await js.stream_info(subjects.RESULTS_STREAM)).state.last_seq
    await js.purge_stream(subjects.RESULTS_STREAM, seq=last)


async def test_a_fetch_of_an_evicted_result_is_told_that_it_is_gone(front: Front) -> None:
    gone = new_id()
    await submit_and_finish(front, gone)
    await submit_and_finish(front, "kept")
    await evict_all_but_the_last(front)
    for subject in (subjects.FETCH, subjects.CANCEL):
        error = await front.refused(subject, request_id=gone)
        assert (error.code, error.field) == ("result_evicted", "request_id")
        assert "results stored before 20" in error.message


async def test_what_is_younger_than_the_oldest_result_or_older_than_the_mesh_is_unknown(front: Front) -> None:
    await submit_and_finish(front, "gone")
    await submit_and_finish(front, "kept")
    await evict_all_but_the_last(front)
    for request_id in (new_id(), str(ULID.from_timestamp(time.time() - 86_400)), "a-clients-own"):
        error = await front.refused(subjects.FETCH, request_id=request_id)
        assert error.code == "unknown_request"
        assert "results stored before 20" in error.message


async def test_while_no_result_has_gone_none_is_called_evicted(front: Front) -> None:
    early = new_id()
    await submit_and_finish(front, "kept")
    error = await front.refused(subjects.FETCH, request_id=early)
    assert (error.code, "no result has gone" in error.message) == ("unknown_request", True)


async def test_asked_again_a_request_whose_result_is_gone_is_not_computed_again(front: Front) -> None:
    await submit_and_finish(front, "gone")
    await submit_and_finish(front, "kept")
    await evict_all_but_the_last(front)
    stored = await front.stored()
    error = await front.refused(subjects.ASK, prompt="hi", model="alpha", request_id="gone")
    assert (error.code, error.field) == ("result_evicted", "request_id")
    assert await front.stored() == stored

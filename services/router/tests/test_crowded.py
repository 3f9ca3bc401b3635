"""Clients that take all places: who would look or cancel is answered all the same."""

from __future__ import annotations

from nats.aio.client import Client

from schemas import subjects
from schemas.errors import ErrorBody
from schemas.replies import Result
from services.router.tests.front import Stream, open_front


async def test_when_all_places_are_taken_requests_are_cancelled_and_the_mesh_is_looked_at(
    connection: Client, mesh_url: str
) -> None:
    async with open_front(connection, mesh_url, max_waiting=2) as front:
        waiting = [
            await Stream(front).open(subjects.ASK, prompt="hi", model="alpha", request_id=f"r{number}")
            for number in (1, 2)
        ]
        for number in (1, 2):
            await front.command(f"r{number}")

        # Given that nobody else may wait
        refused = await front.refused(subjects.ASK, prompt="hi", model="alpha")
        assert refused.code == "overloaded"

        # Then what does not wait is answered, and makes room
        for subject in (subjects.STATUS, subjects.NODES, subjects.MODELS):
            assert not (await front.request(subject)).headers
        assert not (await front.request(subjects.WORKER, action="list")).headers
        assert not (await front.request(subjects.CANCEL, request_id="r1")).headers
        error: ErrorBody | None = (await waiting[0].result()).error
        assert error is not None and error.code == "cancelled"
        again = await Stream(front).open(subjects.ASK, prompt="hi", model="alpha", request_id="r3")
        await front.command("r3")
        await front.finish("r3")
        finished: Result = await again.result()
        assert finished.text == "the giraffe"

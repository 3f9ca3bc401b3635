"""What is kept of one's own requests tells where external servers are, and what they said, to those alone who
observe the mesh."""

from __future__ import annotations

import time

import httpx
import pytest

from infra.testing.choir_up import connect_inside
from infra.testing.mesh import eventually
from schemas import subjects
from schemas.errors import ErrorBody
from schemas.events import RequestCompleted, TaskRetried
from schemas.replies import Answer, Result
from services.chassis.identity import new_id
from services.gateway.access.tests.conftest import MakeKey, bearer, logged_in
from services.gateway.tests.serving import events_of

SERVER = "http://10.1.2.3:8000"
FAILURE = ErrorBody(code="worker_failed", message=f"{SERVER} answered with status 500: Traceback of its own")


async def failed_before(mesh_url: str, *, error: ErrorBody | None) -> str:
    """The id of a request of which a member failed; with an `error` all of it did."""
    request_id, now_s = new_id(), time.time()
    answers = tuple(
        Answer(
            request_id=request_id,
            agent=name,
            model=name,
            instance=name,
            text="" if name == "bad" else "Paris",
            finish_reason="error" if name == "bad" else "stop",
            error=FAILURE if name == "bad" else None,
        )
        for name in ("bad", "good")
    )
    result = Result(
        request_id=request_id,
        fingerprint="f",
        topology="ensemble",
        text=None if error else "Paris",
        error=error,
        answers=answers,
        further_answers=answers[:1],
        accepted_at_s=now_s,
        completed_at_s=now_s,
    )
    connection = await connect_inside(mesh_url)
    try:
        events = events_of(connection)
        events.publish(TaskRetried, request_id=request_id, delivery=1, error=FAILURE)
        events.publish(
            RequestCompleted,
            request_id=request_id,
            topology="ensemble",
            answered=1,
            prompt_tokens=1,
            generated_tokens=1,
            total_duration_ns=1,
            error=error,
        )
        await connection.jetstream().publish(subjects.result(request_id), result.to_bytes())
        await events.close()
    finally:
        await connection.close()
    return request_id


@pytest.mark.parametrize("error", [None, FAILURE], ids=["a member failed", "all failed"])
async def test_kept_errors_tell_of_servers_to_those_alone_who_observe(
    live_mesh: str, locked: httpx.AsyncClient, make_key: MakeKey, error: ErrorBody | None
) -> None:
    request_id = await failed_before(live_mesh, error=error)
    usual = await make_key(scopes=("generate",))
    observer = await make_key(scopes=("generate", "observe"))
    path, page = f"/api/distributed/requests/{request_id}", f"/dashboard/requests/{request_id}"

    async def whole_way() -> bool:  # events are told a moment later
        way = (await locked.get(path, headers=bearer(observer))).json().get("waterfall") or {}
        return {"retried", "completed"} <= {piece["what"] for piece in way.get("pieces", ())}

    await eventually(whole_way)
    told = {
        who: [
            (await locked.get(path, headers=bearer(secret))).text,
            (await locked.get(page, headers=logged_in(secret))).text,
            (await locked.get(f"{page}/json", headers=logged_in(secret))).text,
        ]
        for who, secret in (("usual", usual), ("observer", observer))
    }
    for text in told["usual"]:
        assert "10.1.2.3" not in text and "Traceback" not in text
        assert "a server of this model failed" in text
    for text in told["observer"]:
        assert "10.1.2.3" in text

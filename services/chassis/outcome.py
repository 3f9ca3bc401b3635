"""The end of a request: its one result is stored, and everybody is told what came of it."""

from __future__ import annotations

import time

from schemas import subjects
from schemas.events import RequestCompleted
from schemas.replies import Result
from services.chassis.service import Mesh


async def conclude(mesh: Mesh, result: Result) -> bool:
    """Stores the result of a request. False if it has one already: that one stands.

    Raises PayloadTooLarge, or BrokerUnavailable if the broker does not answer for long.
    """
    started_ns = time.perf_counter_ns()
    stored = await mesh.storage.store_once(subjects.result(result.request_id), result.to_bytes())
    if stored:
        answers = (*result.answers, *result.further_answers)
        mesh.events.publish(
            RequestCompleted,
            request_id=result.request_id,
            topology=result.topology,
            answered=len(result.answers),
            prompt_tokens=sum(answer.prompt_tokens for answer in answers),
            generated_tokens=sum(answer.generated_tokens for answer in answers),
            total_duration_ns=max(0, int((time.time() - result.accepted_at_s) * 1e9)),
            store_duration_ns=time.perf_counter_ns() - started_ns,
            error=result.error,
        )
    return stored

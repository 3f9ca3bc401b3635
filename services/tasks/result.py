"""The end of a request: stores its one result, and tells everybody what came of it.

Whoever stores a result may die before that is told. Whoever then finds the request done tells it instead; the
event has the same id both times, so it is stored once.
"""

from __future__ import annotations

import time

from schemas import subjects
from schemas.events import RequestCompleted
from schemas.replies import Result
from services.chassis.context import ServiceContext

NS = 1e9


async def store_result(mesh: ServiceContext, result: Result) -> bool:
    """Stores the result of a request. False if it has one already: that one stands.

    Raises PayloadTooLarge, or BrokerUnavailable if the broker does not answer for long.
    """
    started_ns = time.perf_counter_ns()
    stored = await mesh.storage.store_once(subjects.result(result.request_id), result.to_bytes())
    if stored:
        total_ns = max(0, int((mesh.clock.now() - result.accepted_at_s) * NS))
        _tell(mesh, result, total_ns, store_duration_ns=time.perf_counter_ns() - started_ns)
    return stored


def retell(mesh: ServiceContext, result: Result) -> None:
    """Tells of a result that was found stored, in case whoever stored it could not.

    A cancellation is told by the router that stored it, and may be long past.
    """
    if result.error is None or result.error.code != "cancelled":
        total_ns = max(0, int((result.completed_at_s - result.accepted_at_s) * NS))
        _tell(mesh, result, total_ns, at_s=result.completed_at_s)


async def has_result(mesh: ServiceContext, request_id: str) -> bool:
    """Whether a request has its result; if so it is told again. Raises BrokerUnavailable."""
    stored = await mesh.storage.last(subjects.RESULTS_STREAM, subjects.result(request_id))
    if stored is not None:
        retell(mesh, Result.read(stored.data))
    return stored is not None


def _tell(mesh: ServiceContext, result: Result, total_ns: int, **more: float) -> None:
    answers = (*result.answers, *result.further_answers)
    mesh.events.publish(
        RequestCompleted,
        event_id=f"completed.{result.request_id}",
        request_id=result.request_id,
        topology=result.topology,
        answered=len(result.answers),
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
        generated_tokens=sum(answer.generated_tokens for answer in answers),
        total_duration_ns=total_ns,
        error=result.error,
        **more,
    )

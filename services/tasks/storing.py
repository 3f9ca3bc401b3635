"""Stores what a request needs exactly once: each task in the queue of its model, and its one result.

Both are told in events. A process may die after it has stored a result and before it has published the event.
The next process that finds the result publishes the event instead; its id is the same both times, so it is
stored once.
"""

from __future__ import annotations

import time

from schemas import subjects
from schemas.commands import Generate
from schemas.errors import Overloaded
from schemas.events import RequestCompleted
from schemas.replies import Result
from services.chassis.context import ServiceContext
from services.chassis.nats.streams import OUTCOME_PATIENCE_S
from services.chassis.work.delivery import Retry
from services.tasks.task_events import emit_queued

NS = 1e9


async def enqueue_task(mesh: ServiceContext, task: Generate) -> int:
    """Stores a task of a request that is in work, and gives its sequence in the queue.

    To ask twice under the same id is to ask once. Raises Retry if the queue is full, PayloadTooLarge, or
    BrokerUnavailable if the broker does not answer for long.
    """
    subject = subjects.generate(task.priority, task.model, task.request_id)
    started_ns = time.perf_counter_ns()
    try:
        acknowledged = await mesh.storage.enqueue(
            subject, task.to_bytes(), message_id=task.task_id, patience_s=OUTCOME_PATIENCE_S
        )
    except Overloaded as error:
        raise Retry(error, delay_s=error.retry_after_s or 1.0) from error
    emit_queued(mesh.events, task, time.perf_counter_ns() - started_ns)
    return acknowledged.sequence


async def store_result(mesh: ServiceContext, result: Result) -> bool:
    """Stores the result of a request. False if it has one already: that one stands.

    Raises PayloadTooLarge, or BrokerUnavailable if the broker does not answer for long.
    """
    started_ns = time.perf_counter_ns()
    stored = await mesh.storage.store_once(subjects.result(result.request_id), result.to_bytes())
    if stored:
        total_ns = max(0, int((mesh.clock.now() - result.accepted_at_s) * NS))
        _emit_completed(mesh, result, total_ns, store_duration_ns=time.perf_counter_ns() - started_ns)
    return stored


def emit_again(mesh: ServiceContext, result: Result) -> None:
    """Publishes the event of a result that was found stored, in case the process that stored it could not.

    A cancellation is published by the router that stored it, and may be long past.
    """
    if result.error is None or result.error.code != "cancelled":
        total_ns = max(0, int((result.completed_at_s - result.accepted_at_s) * NS))
        _emit_completed(mesh, result, total_ns, at_s=result.completed_at_s)


async def has_result(mesh: ServiceContext, request_id: str) -> bool:
    """Whether a request has its result; if so it is told again. Raises BrokerUnavailable."""
    stored = await mesh.storage.last(subjects.RESULTS_STREAM, subjects.result(request_id))
    if stored is not None:
        emit_again(mesh, Result.read(stored.data))
    return stored is not None


def _emit_completed(mesh: ServiceContext, result: Result, total_ns: int, **more: float) -> None:
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

"""Puts a task into the queue of its model, once."""

from __future__ import annotations

import time

from schemas import subjects
from schemas.commands import Generate
from schemas.errors import Overloaded
from services.chassis.context import ServiceContext
from services.chassis.nats.streams import OUTCOME_PATIENCE_S
from services.chassis.work.delivery import Retry
from services.tasks.task_events import emit_queued


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

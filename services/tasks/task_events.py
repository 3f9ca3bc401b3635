"""The events of a task: when it was queued and taken, its first token, its end, and where the time went."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from schemas.commands import Generate
from schemas.events import TaskCancelled, TaskCompleted, TaskFirstToken, TaskPulled, TaskQueued
from schemas.replies import Answer, Topology
from services.chassis.telemetry.events import EventLog
from services.chassis.work.delivery import Delivery

NS = 1e9


@dataclass(frozen=True)
class Taken:
    """A task that was taken from the queue at `at_s`, after `queue_ns` there."""

    command: Generate
    delivery: int
    queue_ns: int
    at_s: float


def emit_queued(events: EventLog, command: Generate, store_ns: int) -> None:
    """A task was stored in the queue of its model, which took `store_ns`."""
    events.publish(
        TaskQueued,
        request_id=command.request_id,
        task_id=command.task_id,
        model=command.model,
        round=command.round,
        priority=command.priority,
        store_duration_ns=store_ns,
    )


def emit_pulled(events: EventLog, command: Generate, delivery: Delivery) -> Taken:
    """A task was taken now."""
    taken = Taken(command, delivery.count, delivery.queue_duration_ns(), time.time())
    events.publish(
        TaskPulled,
        at_s=taken.at_s,
        request_id=command.request_id,
        task_id=command.task_id,
        model=command.model,
        round=command.round,
        delivery=taken.delivery,
        queue_duration_ns=taken.queue_ns,
        waiting=delivery.waiting,
    )
    return taken


def emit_cancelled(events: EventLog, taken: Taken) -> None:
    """Nobody waits for the task any more."""
    events.publish(
        TaskCancelled,
        request_id=taken.command.request_id,
        task_id=taken.command.task_id,
        model=taken.command.model,
        round=taken.command.round,
        total_duration_ns=max(0, int((time.time() - taken.at_s) * NS)),
    )


def emit_completed(events: EventLog, answer: Answer, taken: Taken | None, store_ns: int) -> None:
    """A task's answer was stored now, which took `store_ns`. Without `taken` it ended before it was begun."""
    _emit_completed(events, answer, taken, store_ns, {})


def emit_completed_again(events: EventLog, answer: Answer, command: Generate) -> None:
    """Tells of an answer that was found stored, in case the agent that stored it could not: in its name."""
    known = {"instance": answer.instance, "host": None, "topology": topology_of(command)}
    _emit_completed(events, answer, None, 0, known)


def _emit_completed(
    events: EventLog, answer: Answer, taken: Taken | None, store_ns: int, known: dict[str, str | None]
) -> None:
    if taken is not None and answer.timings.first_token_ns:
        _emit_first_token(events, answer, taken)
    timings = answer.timings
    eval_ns = timings.eval_duration_ns
    fields: dict[str, Any] = {
        "topology": topology_of(taken.command) if taken else None,
        **known,
    }
    events.publish(
        TaskCompleted,
        event_id=f"completed.{answer.task_id}",
        request_id=answer.request_id,
        task_id=answer.task_id,
        model=answer.model,
        round=answer.round,
        delivery=taken.delivery if taken else 1,
        finish_reason=answer.finish_reason,
        prompt_tokens=answer.prompt_tokens,
        generated_tokens=answer.generated_tokens,
        timings=timings,
        tokens_per_s=answer.generated_tokens * NS / eval_ns if eval_ns else None,
        slot_duration_ns=max(0, timings.queue_duration_ns - taken.queue_ns) if taken else 0,
        store_duration_ns=store_ns,
        queue_duration_ns=taken.queue_ns if taken else 0,
        error=answer.error,
        **fields,
    )


def topology_of(command: Generate) -> Topology:
    """How the request travels that a task is part of: its answer's next stop says so."""
    match command.routing_slip:
        case ():
            return "single"
        case ("aggregator", *_):
            return "ensemble"
        case _:
            return "chain"


def _emit_first_token(events: EventLog, answer: Answer, taken: Taken) -> None:
    first_token_ns = answer.timings.first_token_ns
    events.publish(
        TaskFirstToken,
        at_s=taken.at_s + first_token_ns / NS,
        request_id=answer.request_id,
        task_id=answer.task_id,
        model=answer.model,
        round=answer.round,
        first_token_ns=first_token_ns,
    )

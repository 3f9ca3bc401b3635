"""The steps of a result: what it says of each peer, from answers and measured times. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.replies import Answer, ChainStep, Timings

NS_PER_S = 1e9


@dataclass(frozen=True)
class StepRecord:
    """One step that is done: what was written, and what was measured on the way (see `ChainStep`)."""

    answer: Answer
    parts: tuple[Answer, ...] = ()
    round_trip_ns: int | None = None
    ping_ns: int | None = None


def chain_steps(records: Sequence[StepRecord]) -> tuple[ChainStep, ...]:
    """What the result says of each peer, in their order."""
    before: list[int | None] = [None, *(record.ping_ns for record in records[:-1])]
    return tuple(_step(record, ping) for record, ping in zip(records, before, strict=True))


def _step(record: StepRecord, ping_before_ns: int | None) -> ChainStep:
    tasks = (*record.parts, record.answer)
    timings = total(tasks)
    generated = sum(task.generated_tokens for task in tasks)
    eval_s = timings.eval_duration_ns / NS_PER_S
    return ChainStep(
        agent=record.answer.agent,
        model=record.answer.model,
        instance=record.answer.instance,
        tasks=len(tasks),
        prompt_tokens=sum(task.prompt_tokens for task in tasks),
        generated_tokens=generated,
        timings=timings,
        tokens_per_s=generated / eval_s if eval_s else None,
        round_trip_ns=record.round_trip_ns,
        ping_ns=record.ping_ns,
        network_latency_ns=one_way(ping_before_ns, record.ping_ns),
        parts=record.parts,
    )


def one_way(ping_ns: int | None, other_ping_ns: int | None) -> int | None:
    """From one peer to another: half of each one's round trip; None where one was not measured."""
    if ping_ns is None or other_ping_ns is None:
        return None
    return (ping_ns + other_ping_ns) // 2


def total(tasks: Sequence[Answer]) -> Timings:
    """All durations added up; the time to the first token is that of the last task."""
    sums = {
        name: sum(getattr(task.timings, name) for task in tasks)
        for name in Timings.model_fields
        if name != "first_token_ns"
    }
    return Timings(**sums, first_token_ns=tasks[-1].timings.first_token_ns)

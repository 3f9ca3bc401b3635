"""A small day of a mesh: requests of each kind, with a slow one, a failed one and a redelivery."""

from __future__ import annotations

from typing import Any

from schemas.errors import ErrorBody
from schemas.events import (
    CutMoved,
    DecisionMade,
    Event,
    FeedbackReceived,
    GatherCompleted,
    MessageDied,
    NodeSampled,
    RequestAccepted,
    RequestCompleted,
    RequestRefused,
    RequestReplied,
    StageStepped,
    TaskCompleted,
    TaskPulled,
    TaskRetried,
)
from schemas.replies import Timings, Topology

NOON_S = 1_750_248_000.0
MS = 1_000_000
FAILED = ErrorBody(code="generation_failed", message="the backend has closed the connection")
LATE = ErrorBody(code="deadline_exceeded", message="not decided in time")


class Day:
    """Events in the order in which they are told, each with a number of its own."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def tell(self, kind: type[Event], at_s: float, service: str, instance: str, **fields: Any) -> None:
        """One event, `at_s` seconds after noon."""
        self.events.append(
            kind(
                event_id=f"event-{len(self.events):04d}",
                at_s=NOON_S + at_s,
                service=service,
                instance=instance,
                host=fields.pop("host", "alpha"),
                **fields,
            )
        )

    def request(
        self,
        name: str,
        at_s: float,
        topology: Topology,
        models: tuple[str, ...],
        total_ms: int,
        **fields: Any,
    ) -> None:
        """A request from its acceptance to its reply."""
        ids = {"request_id": name, "trace_id": f"{len(self.events):032x}"}
        self.tell(
            RequestAccepted,
            at_s,
            "router",
            "router-1",
            topology=topology,
            models=models,
            prompt_bytes=40,
            timeout_s=60,
            admit_duration_ns=MS,
            **ids,
        )
        self.tell(
            RequestCompleted,
            at_s + total_ms / 1e3,
            "agent",
            "agent-1",
            topology=topology,
            answered=len(models),
            prompt_tokens=20 * len(models),
            generated_tokens=10 * len(models),
            total_duration_ns=total_ms * MS,
            store_duration_ns=MS,
            **ids,
            **fields,
        )
        self.tell(
            RequestReplied,
            at_s + total_ms / 1e3 + 0.001,
            "router",
            "router-1",
            total_duration_ns=(total_ms + 2) * MS,
            **ids,
            **fields,
        )

    def task(
        self,
        request: str,
        at_s: float,
        model: str,
        topology: Topology,
        *,
        total_ms: int,
        queue_ms: int = 2,
        waiting: int = 0,
        delivery: int = 1,
        round_: int = 1,
        host: str = "alpha",
        tokens: int = 10,
        error: ErrorBody | None = None,
    ) -> None:
        """A generation: taken `at_s` after noon, done `total_ms` later."""
        ids = {"request_id": request, "task_id": f"{request}.{round_}.{model}", "model": model}
        instance = f"agent-{model}"
        self.tell(
            TaskPulled,
            at_s,
            "agent",
            instance,
            delivery=delivery,
            round=round_,
            host=host,
            queue_duration_ns=queue_ms * MS,
            waiting=waiting,
            **ids,
        )
        timings = Timings(
            total_duration_ns=total_ms * MS,
            load_duration_ns=MS,
            prompt_eval_duration_ns=10 * MS,
            eval_duration_ns=(total_ms - 15) * MS,
            first_token_ns=12 * MS,
        )
        self.tell(
            TaskCompleted,
            at_s + total_ms / 1e3,
            "agent",
            instance,
            finish_reason="error" if error else "stop",
            prompt_tokens=20,
            generated_tokens=0 if error else tokens,
            timings=timings,
            error=error,
            tokens_per_s=None if error else tokens * 1e3 / (total_ms - 15),
            slot_duration_ns=2 * MS,
            store_duration_ns=MS,
            queue_duration_ns=queue_ms * MS,
            topology=topology,
            round=round_,
            delivery=delivery,
            host=host,
            **ids,
        )


def a_day() -> list[Event]:
    """All events of the day."""
    day = Day()
    for number, model in enumerate(("blue", "red")):
        day.tell(
            NodeSampled,
            0,
            "agent",
            f"agent-{model}",
            cpu_percent=12.5,
            memory_used_bytes=10**8,
            host_memory_free_bytes=10**9,
            load_average=0.5,
            slots=4,
            busy=1,
            broker_rtt_ns=(number + 1) * MS,
        )
    for number in range(6):
        name, at_s = f"single-{number}", 10.0 * number
        day.request(name, at_s, "single", ("blue",), total_ms=100 + 10 * number)
        day.task(name, at_s, "blue", "single", total_ms=80 + 10 * number, queue_ms=2 + number, waiting=number)
    for number in range(3):
        name, at_s = f"ensemble-{number}", 4_000.0 + 10 * number
        day.request(name, at_s, "ensemble", ("blue", "red"), total_ms=300)
        day.task(name, at_s, "blue", "ensemble", total_ms=90)
        day.task(
            name, at_s, "red", "ensemble", total_ms=250, host="beta", error=FAILED if number == 2 else None
        )
        for strategy, share in (("majority", 1.0 if number else 0.5), ("weighted", 0.75)):
            day.tell(
                DecisionMade,
                at_s + 0.3,
                "aggregator",
                "aggregator-1",
                request_id=name,
                strategy=strategy,
                agents=2,
                abstained=0,
                missing=0,
                share=share,
                margin=share / 2,
                tie=share == 0.5,
            )
    day.tell(
        FeedbackReceived,
        4_100,
        "aggregator",
        "aggregator-1",
        request_id="ensemble-0",
        right=("blue",),
        wrong=("red",),
        strategies_right=("weighted",),
        strategies_wrong=("majority",),
    )
    day.tell(
        FeedbackReceived,
        4_101,
        "aggregator",
        "aggregator-1",
        request_id="ensemble-1",
        right=("blue", "red"),
        wrong=(),
        strategies_right=("weighted", "majority"),
    )
    day.request("chain-0", 7_300, "chain", ("blue", "red"), total_ms=700)
    day.task("chain-0", 7_300.02, "blue", "chain", total_ms=200)
    day.task("chain-0", 7_300.25, "red", "chain", total_ms=400, round_=2, host="beta", tokens=30)
    day.request("late-0", 7_400, "single", ("blue",), total_ms=60_000, error=LATE)
    day.tell(
        TaskRetried, 7_401, "agent", "agent-blue", request_id="late-0", delivery=1, error=FAILED, delay_s=0.5
    )
    day.task("late-0", 7_420, "blue", "single", total_ms=30_000, queue_ms=20_000, delivery=2)
    day.tell(MessageDied, 7_461, "router", "router-1", request_id="late-0", error=LATE)
    day.tell(RequestRefused, 7_500, "router", "router-1", request_id="no-0", error=LATE)
    for stage in range(2):
        for step in range(4):
            day.tell(
                StageStepped,
                8_000 + step,
                "shard_stage",
                f"stage-{stage}",
                pipeline="llama",
                stage=stage,
                epoch=1,
                batch_size=2,
                tokens=2,
                compute_ns=(8 + 2 * stage) * MS,
                hop_ns=MS,
                waiting_ns=(2 - stage) * MS,
                steps=1,
                requests=("single-0",),
            )
    day.tell(
        CutMoved,
        8_010,
        "router",
        "router-1",
        pipeline="llama",
        epoch=2,
        layers_before=(1, 3),
        layers=(2, 2),
        rows=2,
        slowest_ms=9.0,
        predicted_ms=6.0,
        gain=0.5,
        rest_s=20.0,
        live_tokens=512,
        lost_s=5.5,
        gained_s=100.0,
    )
    for number, (effort, saved) in enumerate((("exact", 1), ("exact", 0), ("bounded", 2), (None, 0))):
        day.tell(
            GatherCompleted,
            8_060 + number,
            "aggregator",
            "aggregator-1",
            request_id=f"vote-{number}",
            answered=4 - saved,
            missing=0,
            collect_duration_ns=MS,
            decide_duration_ns=MS,
            store_duration_ns=MS,
            effort=effort,
            waves=1 if saved else 2,
            saved_calls=saved,
            saved_tokens=30 * saved,
            bound=None if effort is None else 0.01 * saved,
        )
    day.tell(
        RequestAccepted,
        8_100,
        "router",
        "router-1",
        request_id="open-0",
        topology="single",
        models=("blue",),
        prompt_bytes=40,
    )
    for at_s, dropped in ((8_200, 3), (8_205, 5), (8_210, 1)):
        day.tell(
            NodeSampled,
            at_s,
            "agent",
            "agent-red",
            cpu_percent=12.5,
            memory_used_bytes=10**8,
            host_memory_free_bytes=10**9,
            load_average=0.5,
            slots=4,
            broker_rtt_ns=2 * MS,
            events_dropped=dropped,
        )
    return [*day.events, *told_again(day.events)]


def told_again(events: list[Event]) -> list[Event]:
    """Two ends that somebody else has told again: the same event, without the time that storing took."""
    ends = [event for event in events if event.request_id == "single-0" and event.kind.endswith("completed")]
    return [event.model_copy(update={"store_duration_ns": 0}) for event in ends]

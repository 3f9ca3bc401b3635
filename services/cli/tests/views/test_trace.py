"""`choir trace` from the events of real services, and its query on events that a quiet mesh does not have."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from infra.testing.choir_up import choir_command, clean_environment
from schemas.errors import ErrorBody
from schemas.events import (
    Event,
    RequestAccepted,
    RequestCompleted,
    RequestReplied,
    StageStepped,
    TaskCompleted,
    TaskPulled,
    TaskQueued,
    TaskRetried,
)
from schemas.replies import Timings
from services.cli.tests.conftest import Cli
from services.cli.tests.pseudo_terminal import on_terminal
from services.client.queries.trace.breakdown import stretches
from services.client.queries.trace.document import TraceDocument
from services.client.queries.trace.pieces import QUERY, Waterfall, waterfall
from services.metrics.store.tables import create, definitions, event_tables

pytestmark = pytest.mark.long

MS = 1_000_000
PATIENCE_S = 180.0
AT_S = 1_750_000_000.0


def asked(cli: Cli, *options: str) -> str:
    """Asks, and gives the request's id."""
    outcome = cli("ask", "What is the capital of France?", "--json", *options)
    assert outcome.code == 0, outcome.err
    request_id: str = json.loads(outcome.out)["request_id"]
    return request_id


def traced(cli: Cli, request_id: str, models: frozenset[str] = frozenset()) -> TraceDocument:
    """The trace as a program reads it, once the reply and the work of `models` are stored: each service tells
    of its own part, and none waits for another."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        outcome = cli("trace", request_id, "--json")
        trace = TraceDocument.model_validate_json(outcome.out) if outcome.code == 0 else None
        if trace is not None:
            generated = {piece.model for piece in trace.pieces if piece.what == "generate"}
            needed = {"replied", "decide"} if len(models) > 1 else {"replied"}
            if models <= generated and needed <= {piece.what for piece in trace.pieces}:
                return trace
        assert time.monotonic() < end_s, outcome.out


def test_a_single_request_is_seen_from_admission_to_reply(cli: Cli) -> None:
    trace = traced(cli, asked(cli, "--model", "choir-four"), frozenset(("choir-four",)))
    whats = [piece.what for piece in trace.pieces]
    # What waits for less than the clocks of two processes differ by is in no queue: that is not looked for
    assert {"admit", "enqueue", "generate", "store", "completed", "replied"} <= set(whats)
    assert trace.outcome == "answered" and len(trace.hosts) == 1
    generating = next(piece for piece in trace.pieces if piece.what == "generate")
    assert generating.ended_ms is not None and generating.ended_ms - generating.started_ms >= 45  # of 50
    assert generating.model == "choir-four" and generating.detail is not None
    assert sum(share.ms for share in trace.breakdown) == pytest.approx(trace.total_ms, abs=0.01)
    (generated,) = [share.ms for share in trace.breakdown if share.name == "generating"]
    assert generated >= 45


def test_an_ensemble_is_seen_with_every_member_and_its_decision(cli: Cli) -> None:
    three = frozenset(("choir-one", "choir-two", "choir-four"))
    trace = traced(cli, asked(cli, "--models", ",".join(sorted(three))), three)
    generated = {piece.model for piece in trace.pieces if piece.what == "generate"}
    assert generated == three
    decided = next(piece for piece in trace.pieces if piece.what == "decide")
    assert decided.detail is not None and "majority" in decided.detail
    assert sum(share.ms for share in trace.breakdown) == pytest.approx(trace.total_ms, abs=0.01)
    slowest = next(piece for piece in trace.pieces if (piece.what, piece.model) == ("generate", "choir-four"))
    assert slowest.ended_ms is not None and slowest.ended_ms - slowest.started_ms >= 45  # of 50


def test_a_request_that_there_is_not_is_said_so(cli: Cli) -> None:
    outcome = cli("trace", "nobody-asked-this")
    assert outcome.code == 1
    assert "nobody-asked-this" in outcome.err and outcome.out == ""


def test_the_picture_is_written_as_png_too(cli: Cli, tmp_path: Path) -> None:
    picture = tmp_path / "new" / "way.png"
    request_id = traced(cli, asked(cli, "--model", "choir-one")).request_id
    assert cli("trace", request_id, "--png", str(picture)).code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_on_a_terminal_there_are_bars(cli: Cli, live_mesh: str, tmp_path: Path) -> None:
    request_id = traced(cli, asked(cli, "--model", "choir-four")).request_id
    env = clean_environment(tmp_path, CHOIR_MESH__URL=live_mesh)
    with on_terminal(choir_command("trace", request_id), env, columns=80) as terminal:
        assert terminal.exit_code() == 0
        lines = terminal.text.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    (generating,) = (line for line in lines if "generating" in line and "█" in line)
    assert generating.startswith("choir-four")
    assert any("where the time went" in line for line in lines)


def seen(events: Iterable[Event]) -> Waterfall:
    """What the query makes of these events, in tables as the metrics service has them."""
    with duckdb.connect() as database:
        for name, columns in definitions().items():
            database.execute(create(name, columns))
        for event in events:
            insert(database, event)
        found = database.execute(QUERY.read_text(encoding="utf-8"), {"request_id": "r1"})
        names = [column[0] for column in found.description]
        fall = waterfall("r1", names, found.fetchall())
    assert fall is not None
    return fall


def insert(database: duckdb.DuckDBPyConnection, event: Event) -> None:
    """One event as a row."""
    table = event_tables()[event.kind]
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    values = ", ".join(
        "make_timestamp((? * 1e6)::BIGINT)" if column.name == "at" else "?" for column in table.columns
    )
    dumped = event.model_dump(mode="json")
    database.execute(
        f'INSERT INTO "{event.kind}" ({names}) VALUES ({values})',
        [at_path(dumped, column.path) for column in table.columns],
    )


def at_path(value: Any, path: tuple[str, ...]) -> Any:
    """A field of a field; None if there is none on the way."""
    for name in path:
        value = None if value is None else value[name]
    return json.dumps(value) if isinstance(value, dict) else value


def event(kind: type[Event], at_ms: float, service: str = "agent", **fields: Any) -> Event:
    """An event of request r1, `at_ms` after it came."""
    defaults = {
        "event_id": f"{kind.__name__}-{at_ms}", "at_s": AT_S + at_ms / 1000, "service": service,
        "instance": f"{service}-1", "host": "alpha", "request_id": "r1",
    }  # fmt: skip
    return kind.model_validate({**defaults, **fields})


TASK = {"task_id": "r1.1.big", "model": "big"}
BEFORE = [
    event(
        RequestAccepted, 2, "router", topology="single", models=("big",), prompt_bytes=10,
        admit_duration_ns=2 * MS,
    ),
    event(TaskQueued, 2, "router", **TASK, store_duration_ns=MS),
]  # fmt: skip
AFTER = [
    event(
        RequestCompleted, 101, topology="single", answered=1, prompt_tokens=9, generated_tokens=12,
        total_duration_ns=99 * MS,
    ),
    event(RequestReplied, 102, "router", total_duration_ns=102 * MS),
]  # fmt: skip


def completed(span_id: str, delivery: int = 1) -> Event:
    timings = Timings(
        total_duration_ns=90 * MS, queue_duration_ns=5 * MS, load_duration_ns=0,
        prompt_eval_duration_ns=20 * MS, eval_duration_ns=60 * MS, first_token_ns=25 * MS,
    )  # fmt: skip
    return event(
        TaskCompleted, 101, **TASK, span_id=span_id, finish_reason="stop", prompt_tokens=9,
        generated_tokens=12, timings=timings, tokens_per_s=200.0, slot_duration_ns=4 * MS,
        store_duration_ns=MS, delivery=delivery,
    )  # fmt: skip


def went(fall: Waterfall) -> list[tuple[str, float]]:
    """Names and milliseconds of what happened, in order."""
    return [(part.name, round(part.seconds * 1000, 1)) for part in stretches(fall)]


def test_the_durations_of_a_task_lie_one_after_another() -> None:
    pulled = event(TaskPulled, 10, **TASK, span_id="a", delivery=1, queue_duration_ns=8 * MS)
    fall = seen([*BEFORE, pulled, completed("a"), *AFTER])
    assert went(fall) == [
        ("admission: check, plan, store", 1.0),
        ("storing the command", 1.0),
        ("waiting in the queue", 8.0),
        ("waiting for a slot", 4.0),
        ("reading the prompt", 20.0),
        ("generating", 60.0),
        ("in the agent", 6.0),
        ("storing the outcome", 1.0),
        ("result on its way", 1.0),
    ]
    assert next(p.detail for p in fall.pieces if p.what == "generate") == "12 tokens, 200.0/s"


def test_an_attempt_without_outcome_and_one_that_was_given_back_are_told_apart() -> None:
    lost = event(TaskPulled, 3, **TASK, span_id="a", delivery=1, queue_duration_ns=MS)
    back = event(TaskPulled, 5, **TASK, span_id="b", delivery=2, queue_duration_ns=3 * MS)
    why = ErrorBody(code="overloaded", message="full")
    retried = event(TaskRetried, 6, task_id="r1.1.big", span_id="b", delivery=2, error=why)
    done = event(TaskPulled, 10, **TASK, span_id="c", delivery=3, queue_duration_ns=8 * MS)
    fall = seen([*BEFORE, lost, back, retried, done, completed("c", 3), *AFTER])
    tries = [
        (p.what, p.delivery) for p in fall.pieces if p.what in ("queue", "redelivery", "lost", "retried")
    ]
    assert sorted(tries) == [("lost", 1), ("queue", 1), ("redelivery", 2), ("redelivery", 3), ("retried", 2)]
    waited = sum(ms for name, ms in went(fall) if name == "waiting for another delivery")
    assert waited == pytest.approx(7.0)


def test_the_stages_of_a_pipeline_sum_up_their_steps() -> None:
    pulled = event(TaskPulled, 10, **TASK, span_id="a", delivery=1, queue_duration_ns=8 * MS)
    steps = [
        event(
            StageStepped, 20 + 10 * number, "shard_stage", request_id=None, instance=f"stage-{stage}",
            pipeline="big", stage=stage, epoch=1, batch_size=1, tokens=1, compute_ns=3 * MS, hop_ns=MS,
            waiting_ns=2 * MS, requests=("r0", "r1") if number else ("r0",), event_id=f"{stage}-{number}",
        )
        for stage in (0, 1)
        for number in range(4)
    ]  # fmt: skip
    fall = seen([*BEFORE, pulled, *steps, completed("a"), *AFTER])
    stages = [(p.actor, p.instance, p.detail) for p in fall.pieces if p.what == "stage"]
    assert stages == [(f"big stage {stage}", f"stage-{stage}", "3 steps, hops 3.0 ms") for stage in (0, 1)]
    assert {p.started_s for p in fall.pieces if p.what == "stage"} == {AT_S + 0.014}
    assert [round(p.ended_s - p.started_s, 6) for p in fall.pieces if p.what == "stage" and p.ended_s] == [
        0.009
    ] * 2
    assert ("generating", 60.0) in went(fall)


@pytest.mark.soak
def test_a_report_of_the_last_hour_shows_what_was_asked(cli: Cli, tmp_path: Path) -> None:
    request_id = asked(cli, "--models", "choir-one,choir-four")
    traced(cli, request_id)  # from then on the events are there
    page = tmp_path / "new" / "report.html"
    as_json = cli("report", "--since", "1h", "--out", str(page), "--json")
    assert json.loads(as_json.out) == {"file": str(page), "bytes": page.stat().st_size}
    text = page.read_text()
    assert "choir-four, ensemble" in text and "majority" in text and "The way of the slowest" in text


def test_a_report_of_no_time_is_refused(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("report", "--since", "yesterday", "--out", str(tmp_path / "report.html"))
    assert outcome.code == 2 and "since" in outcome.err

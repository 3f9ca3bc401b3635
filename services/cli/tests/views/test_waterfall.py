"""From pieces to bars, named gaps and sums: every moment of a request is counted once."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from services.cli.views.trace_view import milliseconds, view
from services.client.queries.trace.breakdown import shares, stretches
from services.client.queries.trace.document import document
from services.client.queries.trace.pieces import LABELS, Piece, Waterfall, waterfall

COLUMNS = (
    *("what", "service", "instance", "host", "task_id", "model", "round", "delivery"),
    *("started_s", "ended_s", "detail"),
)
AT_S = 1_750_000_000.0
Row = tuple[object, ...]


def row(
    what: str,
    service: str,
    start_ms: float,
    end_ms: float | None,
    model: str | None = None,
    *,
    task: str | None = None,
    round_: int = 1,
    delivery: int = 1,
    host: str = "alpha",
    detail: str | None = None,
) -> Row:
    """A row as the query gives it, with milliseconds for times."""
    task_id = task or (f"r1.{round_}.{model}" if model else None)
    ended_s = None if end_ms is None else AT_S + end_ms / 1000
    return (what, service, f"{service}-1", host, task_id, model, round_, delivery,
            AT_S + start_ms / 1000, ended_s, detail)  # fmt: skip


def task(model: str, *edges_ms: float, round_: int = 1) -> list[Row]:
    """Queue, prompt, generation and storing of one task, between five edges."""
    kinds = ("queue", "prompt", "generate", "store")
    bounds = zip(kinds, edges_ms, edges_ms[1:], strict=False)
    return [row(kind, "agent", start, end, model, round_=round_) for kind, start, end in bounds]


SINGLE = [
    row("admit", "router", 0, 1, detail="single of 1"),
    row("enqueue", "router", 0.4, 1, "alpha"),
    *task("alpha", 0.8, 2, 5, 9, 10),
    row("completed", "agent", 10, 10),
    row("replied", "router", 10.5, 10.5),
]
ENSEMBLE = [
    row("admit", "router", 0, 1),
    row("queue", "aggregator", 1, 2),
    row("collect", "aggregator", 2, 20),
    row("enqueue", "aggregator", 2, 3, "alpha"),
    row("enqueue", "aggregator", 2, 3, "beta"),
    *task("alpha", 3, 4, 5, 8, 9),
    *task("beta", 3, 6, 8, 18, 19),
    row("decide", "aggregator", 20, 21),
    row("store", "aggregator", 21, 22),
    row("completed", "aggregator", 22, 22),
    row("replied", "router", 23, 23),
]
DEBATE = [
    row("admit", "router", 0, 1),
    row("queue", "aggregator", 1, 2),
    row("collect", "aggregator", 2, 30),
    *task("alpha", 3, 4, 5, 8, 9),
    *task("beta", 3, 4, 5, 11, 12),
    *task("alpha", 13, 14, 15, 28, 29, round_=2),
    *task("beta", 13, 14, 15, 18, 19, round_=2),
    row("decide", "aggregator", 30, 31),
    row("store", "aggregator", 31, 32),
    row("replied", "router", 33, 33),
]
CHAIN = [
    row("admit", "router", 0, 1),
    *task("alpha", 1, 2, 3, 9, 10),
    row("summarise", "summarizer", 12, 30, "beta", task=None),
    row("enqueue", "summarizer", 12, 13, "beta", round_=2),
    *task("beta", 13, 14, 15, 27, 28, round_=2),
    row("replied", "router", 31, 31),
]
REDELIVERED = [
    row("admit", "router", 0, 1),
    row("queue", "agent", 1, 3, "alpha"),
    row("lost", "agent", 3, 12_003, "alpha"),
    row("redelivery", "agent", 3, 12_003, "alpha", delivery=2, host="beta"),
    row("generate", "agent", 12_003, 12_010, "alpha", delivery=2, host="beta"),
    row("store", "agent", 12_010, 12_011, "alpha", delivery=2, host="beta"),
    row("replied", "router", 12_012, 12_012),
]
PIPELINE = [
    row("admit", "router", 0, 1),
    *task("big", 1, 2, 10, 90, 91),
    row("stage", "shard_stage", 2, 90, "big stage 0", task=None, detail="12 steps: compute 30.0 ms"),
    row("stage", "shard_stage", 4, 89, "big stage 1", task=None, host="beta"),
    row("replied", "router", 92, 92),
]
FALLS = {
    "single": SINGLE, "ensemble": ENSEMBLE, "debate": DEBATE, "chain": CHAIN,
    "redelivered": REDELIVERED, "pipeline": PIPELINE,
}  # fmt: skip


def fall_of(rows: list[Row]) -> Waterfall:
    """The waterfall of rows that are there."""
    fall = waterfall("r1", COLUMNS, rows)
    assert fall is not None
    return fall


def went(rows: list[Row]) -> list[tuple[str, str, float]]:
    """Where the time went, in the order of time, in milliseconds."""
    return [(part.name, part.who, round(part.seconds * 1000, 3)) for part in stretches(fall_of(rows))]


def test_of_a_single_task_every_moment_is_named() -> None:
    assert went(SINGLE) == [
        ("admission: check, plan, store", "router", 0.4),
        ("storing the command", "alpha", 0.4),
        ("waiting in the queue", "alpha", 1.2),
        ("reading the prompt", "alpha", 3.0),
        ("generating", "alpha", 4.0),
        ("storing the outcome", "alpha", 1.0),
        ("result on its way", "", 0.5),
    ]


def test_an_ensemble_waits_for_the_member_that_ends_last() -> None:
    assert went(ENSEMBLE) == [
        ("admission: check, plan, store", "router", 1.0),
        ("waiting in the queue", "aggregator", 1.0),
        ("storing the command", "beta", 1.0),
        ("waiting in the queue", "beta", 3.0),
        ("reading the prompt", "beta", 2.0),
        ("generating", "beta", 10.0),
        ("storing the outcome", "beta", 1.0),
        ("waiting for answers", "aggregator", 1.0),
        ("deciding", "aggregator", 1.0),
        ("storing the outcome", "aggregator", 1.0),
        ("result on its way", "", 1.0),
    ]


def test_each_round_of_a_debate_has_its_own_last_member() -> None:
    generating = [(who, ms) for name, who, ms in went(DEBATE) if name == "generating"]
    assert generating == [("beta", 6.0), ("alpha r2", 13.0)]


def test_a_chain_shows_both_peers_and_what_lies_between() -> None:
    parts = went(CHAIN)
    assert ("generating", "alpha", 6.0) in parts and ("generating", "beta r2", 12.0) in parts
    assert ("answer on its way", "", 2.0) not in parts
    assert [part for part in parts if not part[1]] == [
        ("between two steps", "", 2.0),
        ("result on its way", "", 1.0),
    ]


def test_a_lost_attempt_and_its_redelivery_are_seen() -> None:
    fall = fall_of(REDELIVERED)
    parts = stretches(fall)
    waited = max(parts, key=lambda part: part.seconds)
    assert (waited.name, round(waited.seconds)) == ("waiting for another delivery", 12)
    assert [part.across_clocks for part in parts if part.is_gap] == [True]
    assert fall.hosts == ("alpha", "beta")


def test_stages_have_lines_of_their_own_and_are_not_counted_twice() -> None:
    fall = fall_of(PIPELINE)
    assert {piece.actor for piece in fall.pieces if piece.what == "stage"} == {"big stage 0", "big stage 1"}
    assert all(not name.startswith("computing") for name, _, _ in went(PIPELINE))


@pytest.mark.parametrize("name", FALLS)
def test_the_parts_sum_up_to_the_total_and_do_not_overlap(name: str) -> None:
    fall = fall_of(FALLS[name])
    parts = stretches(fall)
    assert parts[0].started_s == fall.started_s and parts[-1].ended_s == fall.ended_s
    assert all(one.ended_s == other.started_s for one, other in pairwise(parts))
    assert sum(share.seconds for share in shares(parts)) == pytest.approx(fall.total_s)
    shown = document(fall)
    assert sum(share.ms for share in shown.breakdown) == pytest.approx(shown.total_ms, abs=0.01)


milliseconds_ = st.floats(min_value=-50, max_value=500, allow_nan=False)


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(LABELS)), milliseconds_, st.none() | milliseconds_,
                  st.sampled_from([None, "alpha", "beta"]), st.integers(1, 3)),
        min_size=1, max_size=12,
    )
)  # fmt: skip
def test_whatever_the_pieces_are_the_parts_sum_up(
    pieces: list[tuple[str, float, float | None, str | None, int]],
) -> None:
    """Clocks of several hosts may contradict each other in any way."""
    rows = [
        row(what, "agent", start, end, model, round_=round_) for what, start, end, model, round_ in pieces
    ]
    fall = waterfall("r1", COLUMNS, rows)
    if fall is None:
        return
    parts = stretches(fall)
    assert sum(part.seconds for part in parts) == pytest.approx(fall.total_s)
    assert all(part.seconds >= 0 for part in parts)
    drawn(fall, 80)


def drawn(fall: Waterfall, width: int) -> str:
    """What the terminal shows."""
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    console.print(view(fall, width))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("name", FALLS)
@pytest.mark.parametrize("width", [80, 120])
def test_the_picture_fits_the_terminal(name: str, width: int) -> None:
    lines = drawn(fall_of(FALLS[name]), width).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width


def test_the_picture_shows_each_piece_where_it_lies() -> None:
    lines = drawn(fall_of(ENSEMBLE), 80).splitlines()
    (generating,) = (
        line for line in lines if line.startswith("beta") and "generating" in line and "█" in line
    )
    assert generating.rstrip().endswith("10.0 ms")
    bar = generating[generating.index("generating") + len("generating") :]
    assert bar.count("█") in range(12, 22)
    (gap,) = (line for line in lines if "(result on its way)" in line and "%" not in line)
    assert "·" in gap


def test_a_name_that_would_command_the_terminal_is_only_shown() -> None:
    fall = fall_of([row("generate", "agent", 0, 5, "evil\x1b[2J\x07")])
    assert "\x1b" not in drawn(fall, 100)


def test_nothing_is_known_of_what_has_no_rows() -> None:
    assert waterfall("r1", COLUMNS, []) is None


@pytest.mark.parametrize(
    ("rows", "outcome"),
    [
        (SINGLE, "answered"),
        (SINGLE[:-1], "completed, not fetched"),
        (SINGLE[:3], "not completed"),
        (
            [row("refused", "router", 0, 0, detail="the queue of work is full")],
            "failed: the queue of work is full",
        ),
    ],
)
def test_it_says_how_it_stands_with_the_request(rows: list[Row], outcome: str) -> None:
    assert fall_of(rows).outcome == outcome


def test_a_reply_that_is_fetched_again_later_is_no_part_of_the_request() -> None:
    again = [*SINGLE, row("replied", "router", 5_000, 5_000)]
    assert fall_of(again).total_s == pytest.approx(0.0105, abs=1e-6)


def test_pieces_know_what_they_are_called() -> None:
    piece = Piece("generate", "agent", "a", "h", "t", "alpha", 2, 3, 0.0, 1.0)
    assert (piece.label, piece.actor) == ("generating", "alpha r2 #3")
    assert [milliseconds(s) for s in (0.000_42, 0.0142, 0.142, 3.25)] == [
        "0.42 ms",
        "14.2 ms",
        "142 ms",
        "3.25 s",
    ]

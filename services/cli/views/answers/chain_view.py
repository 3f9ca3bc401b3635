"""A chain for people: what each peer wrote, and where the time went."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.replies import ChainStep, Result
from services.cli.views.tables.overview_tables import NOTHING, table
from services.cli.views.terminal import plain

NS_PER_MS = 1e6
HEADS = (
    "peer", "tasks", "prompt", "tokens", "tokens/s",
    "load", "prompt eval", "eval", "total", "round trip", "latency",
)  # fmt: skip


def print_chain(out: Console, result: Result) -> None:
    """Prints every raw output under the name of its peer, then the table of durations."""
    for number, answer in enumerate(result.answers, start=1):
        out.print()
        out.print(Text(f"{number} {answer.model}", "bold"))
        out.print(Text(plain(answer.text.strip())), soft_wrap=True)
    out.print()
    out.print(steps_table(result))


def chain_line(result: Result) -> str:
    """The whole chain in one line: `choir-llama 120 ms → choir-gemma 48 ms`."""
    peers = (f"{step.model} {milliseconds(step.timings.total_duration_ns)}" for step in result.steps)
    return " → ".join(peers)


def steps_table(result: Result) -> Table:
    """A line for each peer; times in milliseconds, `latency` is the way from the peer before."""
    rows = table(*HEADS, right=HEADS[1:], named=True)
    for step in result.steps:
        rows.add_row(step.model, *_numbers(step))
    return rows


def _numbers(step: ChainStep) -> list[str]:
    timings = step.timings
    return [
        str(step.tasks),
        str(step.prompt_tokens),
        str(step.generated_tokens),
        NOTHING if step.tokens_per_s is None else f"{step.tokens_per_s:,.0f}",
        milliseconds(timings.load_duration_ns),
        milliseconds(timings.prompt_eval_duration_ns),
        milliseconds(timings.eval_duration_ns),
        milliseconds(timings.total_duration_ns),
        milliseconds(step.round_trip_ns),
        milliseconds(step.network_latency_ns),
    ]


def milliseconds(duration_ns: int | None) -> str:
    """`48 ms`, `0.31 ms`; a dash for what was not measured."""
    if duration_ns is None:
        return NOTHING
    value = duration_ns / NS_PER_MS
    return f"{value:,.0f} ms" if value >= 10 or value == 0 else f"{value:.2g} ms"

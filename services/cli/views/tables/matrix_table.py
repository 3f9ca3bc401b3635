"""The table of a matrix for people."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from analysis.matrix.averages import PairAverage, figure
from services.cli.views.tables.overview_tables import table

HEADS = (
    "generator", "summarizer", "cells", "failed", "total", "± sd",
    "tokens/s", "generator", "summarizer", "latency",
)  # fmt: skip


def pairs_table(pairs: Iterable[PairAverage]) -> Table:
    """A line for each pair: means over its cells; tokens per second of both together and of each."""
    rows = table()
    for number, head in enumerate(HEADS):
        rows.add_column(head, justify="left" if number < 2 else "right")
    for pair in pairs:
        rows.add_row(
            pair.generator,
            pair.summarizer,
            str(pair.cells),
            str(pair.failed),
            figure(pair.total_time_s, "s"),
            figure(pair.total_time_sd_s, "s"),
            figure(pair.tokens_per_s),
            figure(pair.generator_tokens_per_s),
            figure(pair.summarizer_tokens_per_s),
            figure(pair.network_latency_ms, "ms"),
        )
    return rows

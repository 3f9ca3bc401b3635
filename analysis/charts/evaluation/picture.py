"""What a chart is drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from analysis.charts.drawing.theme import CATEGORIES
from analysis.evaluation.scoring.scores import Field

Row = Mapping[str, Any]

GROUPS = {"strategy": "strategy", "baseline": "baseline", "agent": "one agent alone"}
"""How each group is named in a legend."""

OTHER_LOAD = "their samples were asked later, of one agent, under another load"
EARLIER_LOAD = "answers of earlier runs, under another load, are among theirs"
"""Why some have no latency in a picture."""


def why_absent(rows: Sequence[Row]) -> list[str]:
    """Who of `rows` has no latency, and why, a line for each reason."""
    reasons: dict[str, dict[str, None]] = {}
    for row in rows:
        if row["latency_mean_s"] is None:
            reason = EARLIER_LOAD if row.get("from_cache") else OTHER_LOAD
            reasons.setdefault(reason, {})[row["contestant"]] = None
    return [f"without {', '.join(names)}: {reason}" for reason, names in reasons.items()]


COLOUR = alt.Color(
    "group:N",
    scale=alt.Scale(domain=list(GROUPS.values()), range=list(CATEGORIES[:3])),
    title=None,
)
SHAPE = alt.Shape(
    "group:N",
    scale=alt.Scale(domain=list(GROUPS.values()), range=["circle", "square", "triangle-up"]),
    title=None,
)


@dataclass(frozen=True)
class Picture:
    """The rows of a benchmark's summary, and the scores behind them."""

    field: Field
    rows: Sequence[Row]

    @property
    def title(self) -> str:
        """`choir-mmlu: 379 questions, 758 samples`"""
        return f"{self.field.benchmark}: {self.counts}"

    @property
    def counts(self) -> str:
        """`379 questions, 758 samples; answers seen in training`"""
        first = self.rows[0]
        seen = f"; {first['seen_in_training']}" if first.get("seen_in_training") else ""
        return f"{first['n_questions']} questions, {first['n_samples']} samples{seen}"

    def values(self, *columns: str, without: Sequence[str] = ()) -> list[dict[str, Any]]:
        """The rows with these columns, the contestant, and its group as a legend says it."""
        return [
            {
                "contestant": row["contestant"],
                "group": GROUPS[row["group"]],
                **{column: row[column] for column in columns},
            }
            for row in self.rows
            if row["contestant"] not in without
        ]

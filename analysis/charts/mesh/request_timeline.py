"""The way of one request as bars over time: who did what when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import altair as alt

from analysis.charts.drawing.theme import CATEGORIES, EMPHASIS, MUTED

KINDS = ("computes", "waits", "stores", "in vain")
COLOURS = (CATEGORIES[2], CATEGORIES[4], CATEGORIES[5], EMPHASIS)
KIND_OF = {
    **dict.fromkeys(("admit", "load", "prompt", "generate", "agent", "decide", "stage"), "computes"),
    **dict.fromkeys(("queue", "redelivery", "slot", "collect", "summarise"), "waits"),
    **dict.fromkeys(("enqueue", "store"), "stores"),
    **dict.fromkeys(("lost", "cancelled"), "in vain"),
}
"""What a piece is, by its `what` in the query `waterfall`; others are moments, and not drawn."""

WIDTH = 600


def request_timeline(pieces: Iterable[Mapping[str, Any]], title: str) -> alt.typing.ChartType:
    """A bar for each piece; the fields are those of the pieces that `choir trace --json` prints.

    Milliseconds count from the request's arrival at the router; a piece without an end is drawn to the end.
    Below the title stands what kind of request it was and how long it took as a whole.
    """
    pieces = list(pieces)
    bars = [_bar(index, piece) for index, piece in enumerate(pieces) if piece["what"] in KIND_OF]
    last = max((bar["ended_ms"] for bar in bars if bar["ended_ms"] is not None), default=0.0)
    for bar in bars:
        bar["ended_ms"] = last if bar["ended_ms"] is None else bar["ended_ms"]
        bar["took"] = f"{bar['ended_ms'] - bar['started_ms']:.2f} ms"
    kinds = [kind for kind in KINDS if any(bar["kind"] == kind for bar in bars)]
    base = alt.Chart(alt.InlineData(values=bars)).encode(
        y=alt.Y("line:N", sort=[bar["line"] for bar in bars], title=None),
        x=alt.X("started_ms:Q", title="milliseconds since the request came"),
    )
    drawn = base.mark_bar(height={"band": 0.72}).encode(
        x2="ended_ms:Q",
        color=alt.Color(
            "kind:N",
            title=None,
            scale=alt.Scale(domain=kinds, range=[COLOURS[KINDS.index(kind)] for kind in kinds]),
            legend=alt.Legend(orient="top"),
        ),
        tooltip=["who:N", "label:N", "took:N", "detail:N"],
    )
    took = base.mark_text(align="left", dx=6, color=MUTED).encode(x="ended_ms:Q", text="took:N")
    return alt.layer(drawn, took).properties(
        title=alt.TitleParams(title, subtitle=f"{kind_of(pieces)}, {total_ms(pieces):,.2f} ms in all"),
        width=WIDTH,
        height=alt.Step(24),
    )


def kind_of(pieces: Iterable[Mapping[str, Any]]) -> str:
    """How a request has travelled, by the pieces of its way."""
    pieces = list(pieces)
    done = {piece["what"] for piece in pieces}
    models = {piece["model"] for piece in pieces if piece["model"] is not None}
    if done & {"collect", "decide"}:
        return f"an ensemble of {len(models)} models"
    if "summarise" in done:
        return f"a chain over {len(models)} models"
    return f"one answer of {models.pop()}" if len(models) == 1 else "one answer"


def total_ms(pieces: Iterable[Mapping[str, Any]]) -> float:
    """From the request's arrival to the last that is known of it."""
    return max(
        (piece["started_ms"] if piece["ended_ms"] is None else piece["ended_ms"] for piece in pieces),
        default=0.0,
    )


def _bar(index: int, piece: Mapping[str, Any]) -> dict[str, Any]:
    who = piece["model"] or piece["service"]
    if piece["delivery"] > 1:
        who += f", delivery {piece['delivery']}"
    if piece["round"] > 1:
        who += f", round {piece['round']}"
    return {
        # A line each: the same service may do the same thing twice.
        "line": f"{who}: {piece['label']}" + "\u200b" * index,
        "who": who,
        "label": piece["label"],
        "kind": KIND_OF[piece["what"]],
        "started_ms": piece["started_ms"],
        "ended_ms": piece["ended_ms"],
        "detail": piece["detail"] or "",
    }

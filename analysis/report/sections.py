"""The table of a report's sections: adding a section is adding a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from analysis.report.span import TimeSpan

SLOWEST = 10
OBJECTIVE = 0.99


@dataclass(frozen=True)
class Section:
    """A query of `services/client/queries`, and the chart of `analysis/charts/mesh.py` that draws its rows.

    `parameters` are those besides `since` and `until`; `empty` is what is said when there are no rows.
    """

    title: str
    query: str
    chart: str | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    with_table: bool = True
    empty: str = "Nothing of this happened."


LEFT_OUT = Section("What these figures leave out", "left_out", with_table=False)
"""It is no section of its own: what it finds stands above the figures."""


def sections(span: TimeSpan) -> tuple[Section, ...]:
    """All sections, in their order."""
    return (
        Section("Activity", "activity", "activity", {"step_s": span.step_s}, with_table=False),
        Section("Requests", "request_latency"),
        Section("Latency by model", "latency_by_model", "latency_by_model"),
        Section("Time to first token", "time_to_first_token", "time_to_first_token"),
        Section("Speed of each node", "tokens_per_second_by_node", "tokens_by_node"),
        Section("Time in the queue", "queue_time_against_load", "queue_against_load"),
        Section("Agreement", "strategies", "agreement", empty="No ensemble was asked."),
        Section("Pipelines", "stage_bubble", "stage_bubbles", empty="No pipeline ran."),
        Section("Error budget", "error_budget", "error_budget", {"objective": OBJECTIVE}),
        Section("Done more than once", "retries", empty="Nothing was retried, redelivered or given up."),
        Section("Slowest requests", "slowest_requests", parameters={"count": SLOWEST}),
    )

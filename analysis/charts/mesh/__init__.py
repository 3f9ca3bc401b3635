"""The table of the charts of a mesh's events: adding a chart is adding a file and a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import altair as alt

from analysis.charts.drawing.rows import Rows
from analysis.charts.mesh.activity import activity
from analysis.charts.mesh.agreement import agreement
from analysis.charts.mesh.error_budget import error_budget
from analysis.charts.mesh.latency_by_model import latency_by_model
from analysis.charts.mesh.queue_against_load import queue_against_load
from analysis.charts.mesh.stage_bubbles import stage_bubbles
from analysis.charts.mesh.time_to_first_token import time_to_first_token
from analysis.charts.mesh.tokens_by_node import tokens_by_node


@dataclass(frozen=True)
class MeshChart:
    """A chart, and the query in `services/client/queries` whose rows it draws."""

    query: str
    draw: Callable[[Rows], alt.typing.ChartType]


MESH_CHARTS: dict[str, MeshChart] = {
    "activity": MeshChart("activity", activity),
    "latency_by_model": MeshChart("latency_by_model", latency_by_model),
    "time_to_first_token": MeshChart("time_to_first_token", time_to_first_token),
    "tokens_by_node": MeshChart("tokens_per_second_by_node", tokens_by_node),
    "queue_against_load": MeshChart("queue_time_against_load", queue_against_load),
    "agreement": MeshChart("strategies", agreement),
    "error_budget": MeshChart("error_budget", error_budget),
    "stage_bubbles": MeshChart("stage_bubble", stage_bubbles),
}

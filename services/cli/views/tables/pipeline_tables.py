"""Pipelines for people: which node holds which layers, and what a token takes there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise

from rich.table import Table
from rich.text import Text

from schemas.pipelines.plan import PipelineSummary, StageSummary
from services.cli.views.tables.overview_tables import NOTHING, table

STATE_STYLES = {"ready": "green", "loading": "yellow", "broken": "bold red"}


def pipelines_table(pipelines: Iterable[PipelineSummary]) -> Table:
    """A line for each stage, and one for the whole with the hops."""
    rows = table(
        "pipeline", "stage", "layers", "node", "host", "state", "predicted ms", "measured ms",
        right=("stage", "predicted ms", "measured ms"), named=True,
    )  # fmt: skip
    rows.columns[3].no_wrap = True  # rather the last headings are broken than a node's name
    for pipeline in pipelines:
        for number, stage in enumerate(pipeline.stages):
            rows.add_row(
                pipeline.model if number == 0 else "",
                str(number),
                f"{stage.first_layer}-{stage.end_layer - 1}",
                stage.instance,
                stage.host,
                _state(state_of(stage)),
                milliseconds(stage.predicted_ms),
                milliseconds(stage.step_ms),
            )
        rows.add_row(
            "", "all", "", "", "", _state(pipeline.state),
            milliseconds(pipeline.predicted_ms), milliseconds(pipeline.measured_ms),
        )  # fmt: skip
    return rows


def state_of(stage: StageSummary) -> str:
    """`broken`, `loading` or `ready`."""
    return "broken" if not stage.alive else "ready" if stage.ready else "loading"


def pipeline_lines(pipelines: Iterable[PipelineSummary]) -> list[Text]:
    """What a table has no room for: epoch, standbys, one node alone, why it is so, the cut, what is wrong."""
    lines = []
    for pipeline in pipelines:
        alone = NOTHING if pipeline.whole_ms is None else f"{milliseconds(pipeline.whole_ms)} ms"
        standbys = ", ".join(pipeline.standbys) or "none"
        told = f"epoch {pipeline.epoch}; one node alone {alone} a token; standbys: {standbys}"
        lines.append(Text.assemble((f"{pipeline.model}: ", "bold"), f"{told}; {pipeline.why}"))
        lines.append(Text.assemble((f"{pipeline.model}: ", "bold"), cut_line(pipeline)))
        if pipeline.problem is not None:
            lines.append(Text.assemble((f"{pipeline.model}: ", "bold red"), pipeline.problem))
    return lines


def cut_line(pipeline: PipelineSummary) -> str:
    """How the layers are cut, what one of them takes now, where all stages say so, and whether and where to
    the cut was moved while the pipeline ran."""
    told = f"layers {layers_of([stage.end_layer for stage in pipeline.stages])}"
    if all(stage.layer_ms for stage in pipeline.stages):
        layers_ms = ", ".join(milliseconds(stage.layer_ms) for stage in pipeline.stages)
        told += f"; a layer takes {layers_ms} ms now"
    moved, moving = pipeline.moved, pipeline.moving
    if moved is not None:
        at = datetime.fromtimestamp(moved.at_s).astimezone().strftime("%H:%M:%S")
        times = "once" if moved.moves == 1 else f"{moved.moves} times"
        told += (
            f"; moved {times}, last at {at} from {layers_of(moved.ends_before)}, for {moved.gain:.0%} more"
        )
        if moved.lost_s is not None and moved.live_tokens is not None:
            told += f" and about {moved.lost_s:.1f} s without, {moved.live_tokens} tokens read again"
    if moving is not None:
        told += f"; the stages make ready for {layers_of(moving.ends)}"
    return told


def layers_of(ends: Sequence[int]) -> str:
    """How many layers each stage has whose layers end there, such as `12 + 12`."""
    return " + ".join(str(end - start) for start, end in pairwise((0, *ends)))


def milliseconds(value: float | None) -> str:
    """A time for people; 0 is one that nobody could predict."""
    return f"{value:.2f}" if value else NOTHING


def _state(state: str) -> Text:
    return Text(state, STATE_STYLES[state])

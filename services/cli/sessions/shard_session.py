"""Follows a pipeline from the command until every stage is ready."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from schemas.errors import DeadlineExceeded, ModelUnusable
from schemas.pipelines.plan import PipelinePlan, PipelineSummary
from services.cli.views.tables.pipeline_tables import state_of
from services.client.client import Choir

LOOK_INTERVAL_S = 0.2


async def until_ready(
    mesh: Choir, plan: PipelinePlan, timeout_s: float, say: Callable[[str], None]
) -> PipelineSummary:
    """The pipeline once all its stages are ready, of the plan's epoch or a later one.

    `say` gets a line for each stage that becomes ready or is lost. Raises ModelUnusable if the pipeline was
    ended or cannot be mended, and DeadlineExceeded, naming what is not ready, after `timeout_s`.
    """
    end_s = time.monotonic() + timeout_s
    said: set[str] = set()
    while True:
        pipeline = await _pipeline(mesh, plan)
        if pipeline is not None:
            for line in _progress(pipeline):
                if line not in said:
                    said.add(line)
                    say(line)
            if pipeline.problem is not None:
                raise ModelUnusable(pipeline.problem, field="model")
            if pipeline.state == "ready":
                return pipeline
        if time.monotonic() >= end_s:
            raise _too_late(plan, pipeline, timeout_s)
        await asyncio.sleep(LOOK_INTERVAL_S)


async def _pipeline(mesh: Choir, plan: PipelinePlan) -> PipelineSummary | None:
    """None while no router has seen the plan."""
    for pipeline in await mesh.pipelines():
        if pipeline.model == plan.model and pipeline.epoch >= plan.epoch:
            return pipeline
    return None


def _progress(pipeline: PipelineSummary) -> list[str]:
    return [
        f"stage {number} of {len(pipeline.stages)} {state_of(stage)}: layers {stage.first_layer} to "
        f"{stage.end_layer - 1} on {stage.instance}"
        for number, stage in enumerate(pipeline.stages)
        if state_of(stage) != "loading"
    ]


def _too_late(plan: PipelinePlan, pipeline: PipelineSummary | None, timeout_s: float) -> DeadlineExceeded:
    if pipeline is None:
        return DeadlineExceeded(
            f"the pipeline of {plan.model} has been ended, or no router knows of it after {timeout_s:g} s"
        )
    waited_for = ", ".join(stage.instance for stage in pipeline.stages if not stage.ready)
    return DeadlineExceeded(
        f"the pipeline of {plan.model} is not ready after {timeout_s:g} s; these are not: {waited_for}. "
        "They go on, and `choir models` shows when they are"
    )

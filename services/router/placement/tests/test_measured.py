"""The speed of layers, from what the stages of a running pipeline say of their steps."""

from __future__ import annotations

import pytest

from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import PipelinePlan, StageHeld, StepTimes
from services.router.placement.cuts.measured import LEAST_STEPS, MEDIAN_ERROR, MOST_ERROR, measured_speeds
from services.router.placement.summary import summarize_pipeline
from services.router.placement.tests.offering import LAYERS, MODEL, lease, shardable
from services.router.placement.tests.test_replan import planned


def times(rows: int = 1, ms: float = 6.0, *, steps: int = 100, spread: float = 0.1) -> StepTimes:
    return StepTimes(rows=rows, steps=steps, median_ms=ms, spread=spread)


def working(plan: PipelinePlan, *stages: tuple[StepTimes, ...], ready: bool = True) -> list[NodeLease]:
    """The leases of a plan's stages, with what they say of their steps."""
    return [
        lease(
            stage.instance,
            shardable(layer_ms=1.0, last_ms=2.0),
            held=StageHeld(
                model=MODEL,
                epoch=plan.epoch,
                stage=number,
                first_layer=stage.first_layer,
                end_layer=stage.end_layer,
                ready=ready,
                times=stages[number],
            ),
        )
        for number, stage in enumerate(plan.stages)
    ]


def plan_of_two() -> PipelinePlan:
    """Seven layers, and five with an output matrix that is worth two more."""
    return planned([lease(name, shardable(layer_ms=1.0, last_ms=2.0)) for name in "ab"], stages=2)


def test_stages_are_compared_by_steps_of_as_many_rows() -> None:
    plan = plan_of_two()
    assert [stage.end_layer for stage in plan.stages] == [7, LAYERS]
    leases = working(
        plan,
        (times(4, 14.0, steps=300), times(2, 10.5, steps=50), times(1, 7.0, steps=90)),
        (times(8, 40.0, steps=500), times(1, 14.0, steps=60), times(2, 21.0, steps=40)),
    )
    speeds = measured_speeds(plan, leases)
    assert speeds is not None and speeds.rows == 1
    assert speeds.layer_ms == pytest.approx((1.0, 2.0))
    # And that is shown
    summary = summarize_pipeline(plan, leases, [plan])
    assert [stage.layer_ms for stage in summary.stages] == pytest.approx([1.0, 2.0])


def test_where_no_number_of_rows_is_shared_a_row_is_what_counts_and_that_is_said() -> None:
    plan = plan_of_two()
    leases = working(plan, (times(4, 28.0),), (times(8, 56.0), times(1, 99.0, steps=10)))
    speeds = measured_speeds(plan, leases)
    assert speeds is not None and speeds.rows is None
    assert speeds.layer_ms == pytest.approx((1.0, 1.0))
    assert all(stage.layer_ms is None for stage in summarize_pipeline(plan, leases, [plan]).stages)


@pytest.mark.parametrize(
    "unsteady",
    [
        (),
        (times(steps=LEAST_STEPS - 1),),
        (times(steps=9, spread=3.1 * MOST_ERROR / MEDIAN_ERROR),),
        (times(ms=0.0),),
    ],
    ids=["no steps", "too few", "scattered", "no time at all"],
)
def test_a_stage_without_steady_steps_is_compared_with_none(unsteady: tuple[StepTimes, ...]) -> None:
    plan = plan_of_two()
    assert measured_speeds(plan, working(plan, (times(),), (times(),))) is not None
    assert measured_speeds(plan, working(plan, (times(),), unsteady)) is None


def test_many_steps_say_more_than_a_few() -> None:
    """A median of steps that are far apart is known well when there are a hundred of them."""
    plan = plan_of_two()
    errors = []
    for steps in (9, 100):
        speeds = measured_speeds(plan, working(plan, (times(),), (times(steps=steps, spread=0.6),)))
        assert speeds is not None
        errors.append(speeds.error)
    assert errors == pytest.approx([MEDIAN_ERROR * 0.2, MEDIAN_ERROR * 0.06])


def test_what_was_measured_in_another_epoch_or_by_half_of_the_stages_is_none_of_this() -> None:
    plan = plan_of_two()
    leases = working(plan, (times(),), (times(),))
    later = plan.model_copy(update={"epoch": plan.epoch + 1})
    assert measured_speeds(later, leases) is None
    assert measured_speeds(plan, leases[:1]) is None
    assert measured_speeds(plan, working(plan, (times(),), (times(),), ready=False)) is None

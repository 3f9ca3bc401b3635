"""When a plan is changed, and into what."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import InvalidRequest
from schemas.nodes.lease import NodeLease, ServedModel
from schemas.pipelines.plan import PipelinePlan, Shard, StageHeld
from services.router.placement.candidates import candidates_of, pool_of
from services.router.placement.plan_builder import make_plan, predicted, same_work
from services.router.placement.replan import gone_stages, improved, repaired, standbys
from services.router.placement.shard import decided
from services.router.placement.summary import summarize_pipeline
from services.router.placement.tests.offering import (
    LAYERS,
    MODEL,
    lease,
    shardable,
    speeds,
    stage_memory,
)


def planned(leases: list[NodeLease], previous: PipelinePlan | None = None, **spec: Any) -> PipelinePlan:
    """The plan that `choir.shard` would store."""
    shard = Shard(model=MODEL, **spec)
    pool, decision = decided(shard, candidates_of(MODEL, leases), ())
    return make_plan(decision, shard, pool, previous, made_by="router", at_s=0.0, why="test")


def where(plan: PipelinePlan) -> list[tuple[str, int, int]]:
    return [(stage.instance, stage.first_layer, stage.end_layer) for stage in plan.stages]


def test_a_plan_says_who_holds_what_and_what_it_takes() -> None:
    plan = planned(speeds(1.0, 3.0), stages=2)
    sizes = {stage.instance: stage.end_layer - stage.first_layer for stage in plan.stages}
    assert sizes["a"] >= 9 and sum(sizes.values()) == LAYERS
    assert (plan.epoch, plan.sha256, plan.layers) == (1, "a" * 64, LAYERS)
    assert plan.predicted_ms == pytest.approx(sum(s.predicted_ms for s in plan.stages) + 0.2)
    assert plan.whole_ms == 13.0


def test_a_new_plan_keeps_the_number_and_takes_the_next_epoch() -> None:
    first = planned(speeds(1.0, 1.0), stages=2)
    second = planned(speeds(1.0, 1.0, 1.0), first, stages=3)
    assert (second.number, second.epoch) == (first.number, 2)
    assert planned(speeds(1.0, 1.0), stages=2).number != first.number
    assert not same_work(first, second)
    assert same_work(first, planned(speeds(1.0, 1.0), first, stages=2))


def test_a_log_is_of_use_for_as_long_as_the_cuts_stay() -> None:
    first = planned(speeds(1.0, 1.0), stages=2)
    slots = planned(speeds(1.0, 1.0), first, stages=2, slots=4)
    again = planned(speeds(1.0, 1.0), slots, stages=2, slots=5)
    assert (first.since_epoch, slots.since_epoch, again.since_epoch) == (None, 1, 1)
    assert planned(speeds(1.0, 1.0), again, stages=2, dtype="f16").since_epoch is None
    assert planned(speeds(1.0, 1.0, 1.0), again, stages=3).since_epoch is None


def test_what_is_predicted_is_told_in_a_sentence() -> None:
    pool, decision = decided(Shard(model=MODEL, stages=2), candidates_of(MODEL, speeds(1.0, 1.0)), ())
    told = predicted(decision, measured=pool.measured)
    assert told.startswith("2 stages: 13.20 ms a token, up to 141 tokens/s with overlap, predicted")
    assert "a alone would take 13.00 ms" in told


def test_without_speeds_nothing_is_predicted() -> None:
    nodes = [lease(name, shardable(layer_ms=0.0, last_ms=0.0)) for name in "ab"]
    plan = planned(nodes, stages=2)
    assert (plan.predicted_ms, plan.whole_ms) == (0.0, None)
    assert {stage.predicted_ms for stage in plan.stages} == {0.0}


def test_another_instance_takes_the_same_layers_of_one_that_is_gone() -> None:
    nodes = speeds(1.0, 1.0, 1.0)
    plan = planned(nodes, stages=2)
    lost = plan.stages[1].instance
    left = [node for node in nodes if node.instance != lost]
    assert standbys(plan, nodes, (plan,)) == tuple({"a", "b", "c"} - {s.instance for s in plan.stages})
    assert gone_stages(plan, left) == (1,)
    remedy = repaired(plan, (1,), left, (plan,))
    new = make_plan(remedy.decision, plan.wanted, remedy.pool, plan, made_by="r", at_s=0, why=remedy.why)
    assert where(new)[0] == where(plan)[0]
    assert where(new)[1][1:] == where(plan)[1][1:]
    assert new.stages[1].instance not in {s.instance for s in plan.stages}
    assert lost in remedy.why
    assert new.since_epoch == plan.epoch


def test_with_too_few_nodes_for_the_wanted_stages_fewer_are_made() -> None:
    nodes = speeds(1.0, 1.0, 1.0)
    plan = planned(nodes, stages=3)
    left = [node for node in nodes if node.instance != plan.stages[0].instance]
    remedy = repaired(plan, (0,), left, (plan,))
    assert {placement.node.instance for placement in remedy.decision.split.placements} <= {
        n.instance for n in left
    }


def test_when_those_left_cannot_hold_it_the_reason_is_told() -> None:
    nodes = speeds(1.0, 1.0, memory_bytes=stage_memory(6, first=True))
    plan = planned(nodes, stages=2)
    with pytest.raises(InvalidRequest, match="does not fit"):
        repaired(plan, (1,), nodes[:1], (plan,))
    with pytest.raises(InvalidRequest, match="no live node offers large any more"):
        repaired(plan, (0, 1), [], (plan,))


def test_a_node_with_another_file_under_the_name_does_not_step_in() -> None:
    nodes = speeds(1.0, 1.0, memory_bytes=stage_memory(6, first=True))
    plan = planned(nodes, stages=2)
    other = lease("other", shardable(sha256="b" * 64))
    assert standbys(plan, [*nodes, other], (plan,)) == ()
    with pytest.raises(InvalidRequest):
        repaired(plan, (1,), [nodes[0], other], (plan,))


def test_stages_beyond_the_cores_of_their_host_are_standbys_unless_they_are_asked_for() -> None:
    nodes = [lease(name, host="here", cores=2) for name in "abc"]
    plan = planned(nodes)
    assert len(plan.stages) == 2
    assert len(standbys(plan, nodes, (plan,))) == 1
    assert improved(plan, nodes, (plan,)) is None
    assert len(planned(nodes, stages=3).stages) == 3
    assert len(planned([*nodes, lease("d", cores=1)]).stages) == 3


def test_a_much_faster_node_is_worth_a_change_and_a_slightly_faster_one_is_not() -> None:
    plan = planned(speeds(1.0, 1.0), stages=2)
    assert improved(plan, speeds(1.0, 1.0, 0.9), (plan,)) is None
    remedy = improved(plan, speeds(1.0, 1.0, 0.3), (plan,))
    assert remedy is not None
    assert "c" in {placement.node.instance for placement in remedy.decision.split.placements}
    assert len(remedy.decision.split.placements) == 2


def test_a_gain_that_does_not_pay_for_the_interruption_is_left() -> None:
    """From 1.6 to 1.0 ms for the slowest stage: a large share, and half a second for a thousand tokens."""
    plan = planned(speeds(0.2, 0.2), stages=2)
    assert improved(plan, speeds(0.2, 0.2, 0.1), (plan,)) is None


def test_a_change_is_weighed_by_the_speeds_of_now() -> None:
    nodes = speeds(1.0, 1.0, 0.3)
    plan = planned(nodes, stages=2)
    assert improved(plan, nodes, (plan,)) is None


def test_stages_that_were_wanted_come_back_when_there_are_nodes_again() -> None:
    wanted = planned(speeds(1.0, 1.0, 1.0), stages=3)
    fewer = wanted.model_copy(update={"stages": planned(speeds(1.0, 1.0), stages=2).stages})
    remedy = improved(fewer, speeds(1.0, 1.0, 1.0), (fewer,))
    assert remedy is not None and len(remedy.decision.split.placements) == 3


def test_where_a_number_was_not_wanted_a_node_that_joins_may_add_a_stage() -> None:
    plan = planned(speeds(1.0, 1.0))
    assert len(plan.stages) == 2
    remedy = improved(plan, speeds(1.0, 1.0, 1.0), (plan,))
    assert remedy is not None and len(remedy.decision.split.placements) == 3


def test_what_a_user_assigned_stays() -> None:
    plan = planned(speeds(1.0, 1.0), assign=("b", "a"), force=True)
    assert [stage.instance for stage in plan.stages] == ["b", "a"]
    assert improved(plan, speeds(1.0, 1.0, 0.1), (plan,)) is None


def test_a_host_stands_for_its_fastest_free_instance() -> None:
    nodes = [
        lease("a", host="attic"),
        lease("b", shardable(layer_ms=0.9), host="attic"),
        lease("c", host="cellar"),
    ]
    plan = planned(nodes, assign=("cellar", "attic"))
    assert [stage.instance for stage in plan.stages] == ["c", "b"]
    plan = planned(nodes, assign=("b", "attic"))
    assert [stage.instance for stage in plan.stages] == ["b", "a"]


def test_an_unknown_node_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidRequest, match=r"no node 'z' offers large; nodes: a, b; hosts: host-a, host-b"):
        planned(speeds(1.0, 1.0), assign=("a", "z"))


def test_an_instance_holds_a_stage_of_one_model_only() -> None:
    other = shardable("other")
    both = [lease(n).model_copy(update={"stage": offer_both(n, other)}) for n in "abc"]
    plan = planned(both, stages=2)
    held = {stage.instance for stage in plan.stages}
    free = ({"a", "b", "c"} - held).pop()
    with pytest.raises(InvalidRequest, match=f"1 offer other and are free \\({free}\\)"):
        decided(Shard(model="other", stages=2), candidates_of("other", both), (plan,))
    with pytest.raises(InvalidRequest, match="holds a stage of large"):
        decided(Shard(model="other", assign=tuple(held)), candidates_of("other", both), (plan,))
    _, decision = decided(Shard(model="other"), candidates_of("other", both), (plan,))
    assert [placement.node.instance for placement in decision.split.placements] == [free]


def offer_both(instance: str, other: Any) -> Any:
    stage = lease(instance).stage
    assert stage is not None
    return stage.model_copy(update={"models": (*stage.models, other)})


def test_a_pipeline_is_ready_when_every_stage_says_so_of_this_epoch() -> None:
    nodes = speeds(1.0, 1.0, 1.0)
    plan = planned(nodes, stages=2)

    def holding(epoch: int) -> list[NodeLease]:
        held = {
            stage.instance: StageHeld(
                model=MODEL, epoch=epoch, stage=k, first_layer=stage.first_layer,
                end_layer=stage.end_layer, ready=True, step_ms=5.0,
            )
            for k, stage in enumerate(plan.stages)
        }  # fmt: skip
        served = (ServedModel(name=MODEL, backend="pipeline", slots=8, tokens_per_s=50.0),)
        return [lease(node.instance, held=held.get(node.instance), models=served) for node in nodes]

    ready = summarize_pipeline(plan, holding(plan.epoch), (plan,))
    assert (ready.state, ready.measured_ms) == ("ready", 20.0)
    assert [stage.step_ms for stage in ready.stages] == [5.0, 5.0]
    assert len(ready.standbys) == 1
    assert summarize_pipeline(plan, holding(plan.epoch + 1), (plan,)).state == "loading"
    assert summarize_pipeline(plan, nodes, (plan,)).state == "loading"
    left = [node for node in holding(plan.epoch) if node.instance != plan.stages[1].instance]
    broken = summarize_pipeline(plan, left, (plan,), "no node")
    assert (broken.state, broken.problem) == ("broken", "no node")
    assert [(stage.alive, stage.ready) for stage in broken.stages] == [(True, True), (False, False)]


def test_the_context_is_the_shortest_that_a_node_makes_room_for() -> None:
    nodes = [lease("a"), lease("b", shardable(context_tokens=500))]
    assert planned(nodes, stages=2).context_tokens == 500
    assert pool_of(candidates_of(MODEL, nodes)).model.context_tokens == 500

"""What the planner decides, and what it refuses."""

from __future__ import annotations

import pytest

from schemas.errors import InvalidRequest, ModelUnusable, UnknownModel
from schemas.pipelines.plan import Shard, StageHeld
from services.router.placement.candidates import candidates_of, check_same, pool_of, require_candidates
from services.router.placement.planner import decide, only_slows
from services.router.placement.tests.offering import (
    GB,
    LAYERS,
    MODEL,
    decided,
    layers_of,
    lease,
    refusal,
    shardable,
    speeds,
    stage_memory,
)


def test_equal_nodes_get_equal_shares_and_the_output_counts_for_one() -> None:
    # A token takes 12 layers and an output that is as slow as one: 13 ms on one node.
    decision = decided(speeds(1.0, 1.0), stages=2)
    assert decision.whole_ms == 13
    assert sorted(decision.split.steps_ms) == [6, 7]
    # Two messages for each token, of 0.1 ms
    assert decision.split.total_ms == pytest.approx(13.2)
    assert decision.split.tokens_per_s(8) == pytest.approx(1e3 / 7.1)


def test_a_node_gets_layers_in_proportion_to_its_speed() -> None:
    shares = layers_of(decided(speeds(1.0, 2.0, 4.0), stages=3))
    assert shares["a"] > shares["b"] > shares["c"]
    assert shares["a"] == 8


def test_equal_instances_of_one_host_get_equal_shares_whatever_disturbed_a_measurement() -> None:
    disturbed = [
        lease("a", shardable(layer_ms=1.0, last_ms=5.0), host="here", cores=2),
        lease("b", shardable(layer_ms=1.7, last_ms=0.0), host="here", cores=2),
    ]
    assert sorted(layers_of(decided(disturbed, stages=2)).values()) == [6, 6]
    elsewhere = [disturbed[0], lease("b", shardable(layer_ms=1.7, last_ms=0.0), host="there", cores=2)]
    assert layers_of(decided(elsewhere, stages=2))["b"] < 6


def test_streams_that_are_fewer_than_stages_cannot_keep_them_busy() -> None:
    split = decided(speeds(1.0, 1.0, 1.0), stages=3).split
    assert split.tokens_per_s(1) == pytest.approx(1e3 / split.total_ms)
    assert split.tokens_per_s(8) == pytest.approx(1e3 / split.slowest_ms)


def test_stages_with_more_threads_than_their_host_has_cores_share_them() -> None:
    # Given two stages on a host of one core: a token costs that core all 13 ms of computing
    here = [lease(name, host="here", cores=1) for name in "ab"]
    split = decided(here, stages=2, force=True).split
    assert split.tokens_per_s(8) == pytest.approx(1e3 / 13)
    assert "would only slow it down" in refusal(here, stages=2).message
    # On two cores they do not disturb one another
    enough = [lease(name, host="here", cores=2) for name in "ab"]
    assert decided(enough, stages=2).split.tokens_per_s(8) == pytest.approx(1e3 / 7.1)


def test_a_node_without_memory_for_its_share_gets_fewer_layers() -> None:
    small = lease("small", memory_bytes=stage_memory(2, first=True))
    shares = layers_of(decided([small, *speeds(1.0)], stages=2))
    assert shares == {"small": 2, "a": LAYERS - 2}


def test_memory_is_weights_cache_and_overhead_to_the_byte() -> None:
    half = stage_memory(6, first=True)
    assert half == stage_memory(6, last=True)
    assert set(layers_of(decided(speeds(1.0, 1.0, memory_bytes=half), stages=2)).values()) == {6}
    assert "does not fit" in refusal(speeds(1.0, 1.0, memory_bytes=half - 1), stages=2).message


def test_more_slots_need_more_memory() -> None:
    nodes = [lease(name, memory_bytes=stage_memory(6, last=True, slots=8)) for name in "ab"]
    assert layers_of(decided(nodes, stages=2, slots=8))
    error = refusal(nodes, stages=2, slots=80)
    assert (error.code, error.field) == ("invalid_request", "stages")
    assert "960 MB are the cache of 80 sequences of 1000 tokens" in error.message
    assert "fewer slots" in error.message
    assert "a 998, b 998" in error.message


def test_stages_on_one_host_share_its_memory() -> None:
    # Given a host whose free memory each of its instances offers, and another one
    room = stage_memory(8, first=True, last=True)
    here = [lease(name, host="here", memory_bytes=room, host_free_bytes=room) for name in "ab"]
    alone = here[:1] * 1
    assert layers_of(decided([*alone, lease("c")], stages=2))
    # When both take a stage, then together they have only what the host has
    error = refusal(here, stages=2)
    assert "does not fit into 2 stages" in error.message
    shares = layers_of(decided([*here, lease("c")], stages=3))
    assert sum(stage_memory(shares[name], first=True) for name in "ab") <= room
    assert shares["c"] >= 6


def test_stages_on_gpus_of_one_host_share_their_memory_and_not_the_hosts() -> None:
    # Given a host with little memory free, and stages that both offer what is free on its GPUs
    room = stage_memory(8, first=True, last=True)
    on_gpus = [
        lease(name, host="here", memory_bytes=room, gpu_bytes=room, host_free_bytes=1) for name in "ab"
    ]
    assert layers_of(decided([on_gpus[0], lease("c")], stages=2))
    assert "does not fit into 2 stages" in refusal(on_gpus, stages=2).message
    # With GPUs for both they have room, beside a stage that computes with the processor
    large = [
        lease(name, host="here", memory_bytes=room, gpu_bytes=2 * room, host_free_bytes=1) for name in "ab"
    ]
    assert sum(layers_of(decided(large, stages=2)).values()) == LAYERS
    beside = lease("c", host="here", memory_bytes=room, host_free_bytes=room)
    assert sum(layers_of(decided([large[0], beside], stages=2)).values()) == LAYERS


def test_a_stage_on_gpus_is_as_fast_as_it_has_measured_whoever_is_beside_it() -> None:
    slow = lease("slow", shardable(layer_ms=10.0), host="here")
    fast = lease("fast", shardable(layer_ms=1.0), host="here", gpu_bytes=8 * GB)
    nodes = pool_of(candidates_of(MODEL, [slow, fast])).nodes
    assert {node.instance: node.layer_ms for node in nodes} == {"slow": 10.0, "fast": 1.0}


def test_a_model_that_no_node_can_hold_is_split_although_it_is_slower() -> None:
    nodes = [lease(name, memory_bytes=1 * GB, hop_ms=50) for name in "ab"]
    decision = decided(nodes, stages=2)
    assert decision.whole_ms is None and not only_slows(decision)


def test_a_split_that_only_slows_down_is_refused_with_the_figures() -> None:
    error = refusal(speeds(1.0, 20.0), stages=2)
    assert (error.code, error.field) == ("invalid_request", "stages")
    assert "2 stages would only slow it down" in error.message
    assert "a alone takes 13.00 ms" in error.message
    assert "--force" in error.message


def test_it_is_made_when_it_is_forced() -> None:
    decision = decided(speeds(1.0, 20.0), stages=2, force=True)
    assert only_slows(decision)
    assert layers_of(decision)["b"] == 1


def test_without_a_number_of_stages_a_slow_node_is_left_out() -> None:
    assert layers_of(decided(speeds(1.0, 20.0))) == {"a": LAYERS}


def test_without_a_number_of_stages_it_takes_as_many_as_pay_off() -> None:
    assert len(layers_of(decided(speeds(1.0, 1.0, 1.0)))) == 3
    # A fourth node of a tenth of the speed gains less than a tenth.
    assert len(layers_of(decided(speeds(1.0, 1.0, 1.0, 10.0)))) == 3


def test_hops_that_cost_more_than_they_gain_collapse_a_split() -> None:
    assert len(layers_of(decided(speeds(1.0, 1.0, hop_ms=8.0)))) == 1


def test_a_node_of_unknown_speed_counts_as_the_slowest() -> None:
    decision = decided([*speeds(1.0, 3.0), lease("new", shardable(layer_ms=0.0, last_ms=0.0))], stages=3)
    shares = layers_of(decision)
    assert shares["new"] in (shares["b"], shares["b"] + 1, shares["b"] - 1)


def test_where_no_speed_is_known_layers_are_counted_and_nothing_is_refused() -> None:
    nodes = [lease(name, shardable(layer_ms=0.0, last_ms=0.0), hop_ms=99) for name in "abc"]
    assert set(layers_of(decided(nodes, stages=3)).values()) == {4}
    assert not pool_of(candidates_of(MODEL, nodes)).measured


def test_an_impossible_number_of_stages_names_the_possible_ones() -> None:
    error = refusal([lease(n, shardable(cuts=(4, 8))) for n in "abcde"], stages=4)
    assert (error.field, error.code) == ("stages", "invalid_request")
    assert "can have 1 to 3 stages, not 4" in error.message
    assert "layer 4, 8" in error.message


def test_more_stages_than_nodes_name_the_nodes() -> None:
    error = refusal(speeds(1.0, 1.0), stages=3)
    assert error.field == "stages"
    assert "2 offer large and are free (a, b)" in error.message


def test_a_context_beyond_the_models_is_refused() -> None:
    error = refusal(speeds(1.0, 1.0), stages=2, context_tokens=1001)
    assert error.field == "context_tokens" and "1000" in error.message


def test_blocks_of_q8_0_need_a_width_of_whole_blocks() -> None:
    nodes = [lease(n, shardable(width=48)) for n in "ab"]
    error = refusal(nodes, stages=2, dtype="q8_0")
    assert error.field == "dtype" and "48" in error.message
    assert layers_of(decided(nodes, stages=2, dtype="f16"))


def test_a_model_that_nobody_offers_is_unknown_and_those_offered_are_named() -> None:
    with pytest.raises(UnknownModel, match=r"offered: large") as caught:
        require_candidates("larger", speeds(1.0))
    assert (caught.value.field, caught.value.known) == ("model", ("large",))


def test_the_reason_for_which_a_stage_service_offers_nothing_is_told_to_who_asks() -> None:
    problem = ModelUnusable("new: gemma3n cannot be cut").body()
    broken = lease("attic", shardable("old"), state="broken", problem=problem)
    with pytest.raises(UnknownModel, match=r"attic offers none: new: gemma3n cannot be cut\. A host offers"):
        require_candidates("new", [broken])


def test_a_node_that_is_not_ready_offers_nothing() -> None:
    assert candidates_of(MODEL, [lease("a", state="draining"), lease("b", state="broken")]) == ()


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (lease("b", shardable(sha256="b" * 64)), "sha256 bbbbbbbbbbbb"),
        (lease("b", shardable(architecture="qwen2")), "qwen2"),
        (lease("b", shardable(layers=11)), "11 layers"),
        (lease("b", version="2"), "Choir 2"),
    ],
)
def test_nodes_that_differ_in_what_they_offer_are_refused_and_named(other: object, told: str) -> None:
    candidates = candidates_of(MODEL, [lease("a"), other])  # type: ignore[list-item]
    with pytest.raises(InvalidRequest) as caught:
        check_same(candidates)
    assert caught.value.field == "model"
    assert f"b: {told}" in caught.value.message
    assert "--assign" in caught.value.message


def test_stages_go_to_the_nodes_that_were_named_in_that_order() -> None:
    pool = pool_of(candidates_of(MODEL, speeds(1.0, 2.0, 1.0)))
    named = [node for name in "ba" if (node := pool.node(name))]
    decision = decide(Shard(model=MODEL, assign=("b", "a")), pool, named)
    assert list(layers_of(decision)) == ["b", "a"]
    with pytest.raises(InvalidRequest) as caught:
        slow = pool_of(candidates_of(MODEL, speeds(1.0, 20.0)))
        decide(Shard(model=MODEL, assign=("b", "a")), slow, [slow.nodes[1], slow.nodes[0]])
    assert caught.value.field == "assign"


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
def test_the_number_of_stages_is_the_fewest_with_nearly_the_most_tokens_per_second(slots: int) -> None:
    for layer_ms in ((1.0, 1.0, 1.0, 1.0), (1.0, 2.0, 4.0), (0.5, 3.0, 3.0, 3.0, 3.0), (5.0, 1.0, 1.1, 1.2)):
        nodes = speeds(*layer_ms, hop_ms=0.3)
        splits = [
            decided(nodes, stages=stages, slots=slots, force=True).split
            for stages in range(1, len(nodes) + 1)
        ]
        rates = {
            len(split.placements): split.tokens_per_s(slots)
            for split in splits
            if all(split.tokens_per_s(n) >= splits[0].tokens_per_s(n) for n in (2, 4, 8) if n <= slots)
            or len(split.placements) == 1
        }
        fewest = min(stages for stages, rate in rates.items() if rate >= max(rates.values()) * 0.9)
        assert len(layers_of(decided(nodes, slots=slots))) == fewest, layer_ms


def test_a_cordoned_node_offers_the_stage_that_it_holds_and_nothing_more() -> None:
    held = StageHeld(model=MODEL, stage=0, first_layer=0, end_layer=6, ready=True, epoch=1)
    nodes = [
        lease("a", cordon="cordon", held=held),
        lease("b", cordon="cordon"),
        lease("c", cordon="drain", held=held),
        lease("d"),
    ]
    assert [candidate.instance for candidate in candidates_of(MODEL, nodes)] == ["a", "d"]

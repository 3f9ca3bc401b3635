"""What a stage has at hand for the next cut."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from infra.demo_models.family import FOLDER
from schemas.pipelines.plan import CutMove, PipelinePlan
from services.engine.model.gguf.check import check_model_file
from services.shard_stage.handover.assignment import Assignment
from services.shard_stage.handover.next_slice import NextSlice
from services.shard_stage.probe.capability import ModelSource, Speed, shardable_of
from services.shard_stage.probe.slice_cache import SliceCache
from services.shard_stage.settings import StageModelSection
from services.shard_stage.tests.helpers.line import plan_of

MODEL = FOLDER / "choir-llama.gguf"
LAYERS = 4
PLENTY = 1 << 40


@pytest.fixture
def source() -> ModelSource:
    """The model of a plan of the tests, with no speed measured."""
    section = StageModelSection(name="alpha", path=MODEL)
    return ModelSource(MODEL, shardable_of(section, PLAN.sha256, check_model_file(MODEL), Speed(1.0, 1.0)))


def moving(plan: PipelinePlan, *ends: int) -> PipelinePlan:
    move = CutMove(at_s=0, ends_before=plan.ends, ends=ends, slowest_ms=2, predicted_ms=1, gain=1, rest_s=20)
    return plan.model_copy(update={"moving": move})


PLAN = plan_of(MODEL, 2)
TO_THREE = Assignment(moving(PLAN, 3, LAYERS), 0)


def after(place: Assignment) -> Assignment:
    """The place of an instance when the cut has moved."""
    assert place.next is not None
    return place.next


class Instance:
    """The next slice of an instance with so much memory, and its sign that it is there."""

    def __init__(self, folder: Path, memory_bytes: int) -> None:
        self.ready = asyncio.Event()
        self.next = NextSlice(SliceCache(folder), 1, memory_bytes, self.ready.set)


def test_the_next_place_has_the_slice_of_the_move() -> None:
    assert PLAN.moving is None and Assignment(PLAN, 0).next is None
    assert after(TO_THREE).layers == range(3)
    assert after(Assignment(TO_THREE.plan, 1)).layers == range(3, LAYERS)
    assert not after(TO_THREE).same_place(TO_THREE)


async def test_a_slice_is_loaded_while_there_is_room_for_both_and_handed_over_once(
    tmp_path: Path, source: ModelSource
) -> None:
    instance = Instance(tmp_path, PLENTY)
    instance.next.follow(TO_THREE, source)
    assert instance.next.ready is None
    await asyncio.wait_for(instance.ready.wait(), 180)
    assert instance.next.ready == range(3)
    loaded = instance.next.take(after(TO_THREE))
    assert loaded is not None and loaded.origin.end_layer == 3
    assert instance.next.ready is None and instance.next.take(after(TO_THREE)) is None
    loaded.close()
    await instance.next.close()


async def test_without_room_for_both_it_is_ready_on_the_disk(tmp_path: Path, source: ModelSource) -> None:
    room = TO_THREE.need_bytes(source.shardable) + after(TO_THREE).need_bytes(source.shardable) - 1
    instance = Instance(tmp_path, room)
    instance.next.follow(TO_THREE, source)
    await asyncio.wait_for(instance.ready.wait(), 180)
    assert instance.next.ready == range(3)
    assert [path.name for path in tmp_path.glob("*.gguf")] == [f"{PLAN.sha256}-0-3.gguf"]
    assert instance.next.take(after(TO_THREE)) is None
    await instance.next.close()


async def test_what_the_plan_says_no_more_is_forgotten_also_while_it_is_loaded(
    tmp_path: Path, source: ModelSource
) -> None:
    instance = Instance(tmp_path, PLENTY)
    # When the plan changes its mind while a slice is written
    instance.next.follow(TO_THREE, source)
    to_one = Assignment(moving(PLAN, 1, LAYERS), 0)
    instance.next.follow(to_one, source)
    await asyncio.wait_for(instance.ready.wait(), 180)
    # Then the other one is at hand, and none when there is to be no move
    assert instance.next.ready == range(1)
    instance.next.follow(Assignment(PLAN, 0), source)
    assert instance.next.ready is None and instance.next.take(after(to_one)) is None
    await instance.next.close()


async def test_a_stage_whose_slice_stays_has_nothing_to_do(tmp_path: Path, source: ModelSource) -> None:
    instance = Instance(tmp_path, PLENTY)
    instance.next.follow(Assignment(moving(PLAN, 2, LAYERS), 0), source)
    await instance.next.close()
    assert instance.next.ready is None and not list(tmp_path.glob("*.gguf"))


async def test_a_slice_that_cannot_be_had_is_not_ready(tmp_path: Path, source: ModelSource) -> None:
    (file := tmp_path / "file").write_text("no folder")
    instance = Instance(file, PLENTY)
    instance.next.follow(TO_THREE, source)
    await instance.next.close()
    assert instance.next.ready is None and not instance.ready.is_set()

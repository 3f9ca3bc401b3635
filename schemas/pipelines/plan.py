"""A model across nodes: what stage services offer, what is asked for, and the plan that joins them.

The plan of a model lies in the bucket of pipelines under `subjects.pipeline_key(model)` and is only ever
changed by compare-and-set, with the next epoch. Frames of another epoch than the plan's are ignored.
"""

from __future__ import annotations

from itertools import pairwise
from operator import not_
from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.message import Act, Message, Name, Struct, field_error, is_none

MAX_STAGES = 32

StageDtype = Literal["f32", "f16", "q8_0"]
Partition = Literal["layerwise", "tokenwise", "adaptive"]
DraftSource = Literal["lookup"]
PipelineState = Literal["ready", "loading", "broken"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0)]


class StepCost(Struct):
    """What a step in which `rows` sequences have a token each takes, in steps of a single sequence: `alone`,
    and `beside` others that compute on the other cores of the host, as the stages of a pipeline do."""

    rows: Annotated[int, Field(ge=1)]
    alone: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    beside: Annotated[float, Field(ge=1, allow_inf_nan=False)]


class Shardable(Struct):
    """A model of which a stage service can load any slice.

    `cuts` are the layers at which a slice may begin, 0 not among them. `layer_bytes` has one entry for each
    layer: the memory that its weights take on this node; `first_bytes` are the first slice's embeddings,
    `last_bytes` the last one's output matrix.
    `cell_bytes` is what the keys and values of one token take in one layer. `layer_ms` and `last_ms` are
    measured on this node: one layer, and norm and output matrix, for one token of one sequence. `step_costs`,
    by ascending rows, say what more sequences in a step cost here; none where that was not measured.
    """

    name: Name
    sha256: Sha256
    architecture: str
    layers: Annotated[int, Field(ge=1)]
    cuts: tuple[int, ...]
    width: Annotated[int, Field(ge=1)]
    context_tokens: Annotated[int, Field(ge=1)]
    layer_bytes: tuple[Bytes, ...]
    first_bytes: Bytes
    last_bytes: Bytes
    cell_bytes: Bytes
    layer_ms: Milliseconds
    last_ms: Milliseconds
    step_costs: Annotated[tuple[StepCost, ...], Field(exclude_if=not_)] = ()


class StepTimes(Struct):
    """The steps of the last seconds in which so many sequences had a token each (`rows`): the median of their
    computing, without any waiting. `spread` is how far their middle half is apart, over the median."""

    rows: Annotated[int, Field(ge=1)]
    steps: Annotated[int, Field(ge=1)]
    median_ms: Milliseconds
    spread: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class StageHeld(Struct):
    """The stage that an instance holds, of the plan with this epoch. `step_ms` is the median of a step.
    `tokens_per_s` is what it has evaluated a second in the last seconds, tokens of prompts included; 0 at
    rest. `times` are the steps of late, by their rows; none at rest. `prepared` is the slice that it has at
    hand for the plan's next cut: the first layer, and the one after the last. `prompt_token_ms` is what a
    token of a prompt takes here, None before the first steps; `live_tokens` are those of all texts in work,
    as the first stage knows: the others say 0."""

    model: Name
    epoch: int
    stage: Annotated[int, Field(ge=0)]
    first_layer: int
    end_layer: int
    ready: bool
    step_ms: Milliseconds | None = None
    tokens_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    times: Annotated[tuple[StepTimes, ...], Field(exclude_if=not_)] = ()
    prepared: Annotated[tuple[int, int] | None, Field(exclude_if=is_none)] = None
    prompt_token_ms: Annotated[Milliseconds | None, Field(exclude_if=is_none)] = None
    live_tokens: Annotated[int, Field(ge=0, exclude_if=not_)] = 0


class StageOffer(Struct):
    """What a stage service has for pipelines: part of its lease. Without `held` it is free, or a standby.

    `hop_ms` is the measured time of a frame to another service of the mesh. `cores` are those of the host,
    which all of its stages share. `memory_bytes` is of the host, or, with `gpu_bytes`, of its GPUs: these
    have so much in all, for all stages that compute there.
    """

    models: tuple[Shardable, ...]
    memory_bytes: Bytes
    threads: Annotated[int, Field(ge=1)]
    cores: Annotated[int, Field(ge=1)] | None = None
    hop_ms: Milliseconds
    held: StageHeld | None = None
    gpu_bytes: Annotated[Bytes | None, Field(exclude_if=is_none)] = None


class Shard(Message):
    """A model is to run as a pipeline of stages, on `choir.shard`.

    `stages` is their number; without it the planner takes what is fastest. `assign` names the instances (or
    hosts) of the stages in order. A split that only slows the model down is refused unless `force`.
    With `draft` tokens are guessed ahead: `lookup` takes what followed when a text said the same before.
    `remove` ends the model's pipeline. With `plan_only` the reply says what would be done, and nothing is.
    """

    model: Name
    stages: Annotated[int, Field(ge=1, le=MAX_STAGES)] | None = None
    assign: Annotated[tuple[Name, ...], Field(max_length=MAX_STAGES)] = ()
    force: bool = False
    dtype: StageDtype = "f32"
    partition: Partition = "adaptive"
    slots: Annotated[int, Field(ge=1, le=256)] = 8
    context_tokens: Annotated[int, Field(ge=32)] | None = None
    draft: Annotated[DraftSource | None, Field(exclude_if=is_none)] = None
    remove: bool = False
    plan_only: Annotated[bool, Field(exclude_if=not_)] = False

    @model_validator(mode="after")
    def _consistent(self) -> Shard:
        if self.assign and self.stages not in (None, len(self.assign)):
            raise field_error(
                "assign", f"{len(self.assign)} nodes for {self.stages} stages: name one for each"
            )
        if len(set(self.assign)) != len(self.assign):
            raise field_error("assign", "a node is named twice")
        return self

    def act(self) -> Act | None:
        """As the base class says."""
        return None if self.plan_only else Act("remove" if self.remove else "place", self.model)


class StagePlan(Struct):
    """Layers `first_layer` to `end_layer` - 1, on one instance; `predicted_ms` is its step for one token."""

    instance: Name
    host: str
    first_layer: Annotated[int, Field(ge=0)]
    end_layer: Annotated[int, Field(ge=1)]
    predicted_ms: Milliseconds


class CutMove(Struct):
    """A cut of a running pipeline that is moved, because of what its stages have measured.

    `ends` are the last layers of the stages, plus one, and `ends_before` those that they had. The slowest
    stage took `slowest_ms` of a step with `rows` rows (of a row, where that is None), and is to take
    `predicted_ms`; `gain` is what is expected in tokens per second, 0.1 for a tenth. The next move is not
    before `rest_s` after `at_s`, in seconds since the epoch. `moves` counts from when the model was placed.
    `lost_s` is what the move was taken to cost, the reading again of `live_tokens` of texts in work included,
    and `gained_s` what it was to spare; None where nobody has weighed them.
    """

    at_s: float
    ends_before: Annotated[tuple[int, ...], Field(max_length=MAX_STAGES)]
    ends: Annotated[tuple[int, ...], Field(max_length=MAX_STAGES)]
    rows: Annotated[int, Field(ge=1)] | None = None
    slowest_ms: Milliseconds
    predicted_ms: Milliseconds
    gain: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    rest_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    moves: Annotated[int, Field(ge=1)] = 1
    live_tokens: Annotated[int | None, Field(ge=0, exclude_if=is_none)] = None
    lost_s: Annotated[Seconds | None, Field(exclude_if=is_none)] = None
    gained_s: Annotated[Seconds | None, Field(exclude_if=is_none)] = None

    def slice_of(self, stage: int) -> tuple[int, int]:
        """The first layer of a stage, and the one after its last."""
        return (self.ends[stage - 1] if stage else 0), self.ends[stage]


class PipelinePlan(Message):
    """Who holds which layers of a model. `number` names the pipeline in frames; it stays over epochs.

    `predicted_ms` is the time of a token of a single stream, hops included; `whole_ms` is what the fastest
    node that could hold the whole model would take, None if there is none. `wanted` is what was asked for,
    for whoever plans anew. `since_epoch` is the first epoch with these layers, this file and this dtype (this
    epoch, where it is None); frames of earlier epochs must not be replayed. `moved` is the last
    move of the cut, and `moving` the next one: the stages load for it what they lack, while they go on.
    """

    model: Name
    number: Annotated[int, Field(ge=1, lt=2**63)]
    epoch: Annotated[int, Field(ge=1)]
    since_epoch: Annotated[int, Field(ge=1)] | None = None
    sha256: Sha256
    architecture: str
    layers: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    slots: Annotated[int, Field(ge=1, le=256)]
    context_tokens: Annotated[int, Field(ge=32)]
    dtype: StageDtype
    partition: Partition
    stages: Annotated[tuple[StagePlan, ...], Field(min_length=1, max_length=MAX_STAGES)]
    predicted_ms: Milliseconds
    whole_ms: Milliseconds | None = None
    wanted: Shard
    made_by: Name
    made_at_s: float
    why: str
    moved: Annotated[CutMove | None, Field(exclude_if=is_none)] = None
    moving: Annotated[CutMove | None, Field(exclude_if=is_none)] = None

    @property
    def ends(self) -> tuple[int, ...]:
        """The last layers of the stages, plus one."""
        return tuple(stage.end_layer for stage in self.stages)

    @model_validator(mode="after")
    def _contiguous(self) -> PipelinePlan:
        borders = [0, *(stage.end_layer for stage in self.stages)]
        if [stage.first_layer for stage in self.stages] != borders[:-1] or borders[-1] != self.layers:
            raise field_error("stages", "the stages do not cover the model's layers in order")
        if any(start >= end for start, end in pairwise(borders)):
            raise field_error("stages", "a stage has no layers")
        if len({stage.instance for stage in self.stages}) != len(self.stages):
            raise field_error("stages", "an instance holds two stages of one pipeline")
        return self


class ShardReply(Message):
    """The plan that a `Shard` led to, None where a pipeline was removed, and a sentence about it."""

    model: Name
    plan: PipelinePlan | None = None
    summary: str


class StageSummary(Struct):
    """A stage of a plan as it is now: `alive` if its instance has a lease, `ready` if that says that it holds
    the stage in the plan's epoch. `step_ms` is the median measured of what `predicted_ms` predicts.
    `layer_ms` is what one layer takes of a step that all stages have done lately with as many rows; None
    where the times scatter or there is no work."""

    instance: Name
    host: str
    first_layer: int
    end_layer: int
    alive: bool
    ready: bool
    predicted_ms: Milliseconds
    step_ms: Milliseconds | None = None
    layer_ms: Annotated[Milliseconds | None, Field(exclude_if=is_none)] = None


class PipelineSummary(Struct):
    """A pipeline as it is now.

    It is `ready` if all stages are, `broken` if an instance is gone, else `loading`. `predicted_ms` and
    `whole_ms` are the plan's; `measured_ms` is the time of a token as stage 0 measures it: over all sequences
    that it generates at once, so it falls as they overlap. `standbys` could take a stage's place. `problem`
    says why a pipeline without enough nodes stays so. `moved` and `moving` are the plan's.
    """

    model: Name
    epoch: int
    state: PipelineState
    stages: tuple[StageSummary, ...]
    standbys: tuple[Name, ...] = ()
    slots: int
    context_tokens: int
    dtype: StageDtype
    partition: Partition
    predicted_ms: Milliseconds
    whole_ms: Milliseconds | None = None
    measured_ms: Milliseconds | None = None
    why: str
    problem: str | None = None
    moved: Annotated[CutMove | None, Field(exclude_if=is_none)] = None
    moving: Annotated[CutMove | None, Field(exclude_if=is_none)] = None

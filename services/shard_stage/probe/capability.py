"""The capability of an instance: each model's shape, and how fast its layers are here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from schemas.errors import ModelUnusable
from schemas.pipelines.plan import Shardable, StepCost
from services.chassis.logs import get_logger
from services.engine.decode.rows import RowGroup, Rows
from services.engine.decode.stage_context import StageContext
from services.engine.model.architectures.table import EMBEDDINGS, LAYER_TENSOR, OUTPUT
from services.engine.model.cuts import allowed_cuts, architecture_of, layer_count
from services.engine.model.gguf.check import check_model_file, tensor_nbytes
from services.engine.model.gguf.header import ByteSource, GgufFault, GgufHeader, TensorInfo
from services.engine.model.gguf.split_files import size_of
from services.engine.model.identity import checksum
from services.engine.model.memory.cells import cell_bytes
from services.engine.model.memory.repacking import Repacking
from services.engine.model.model import Weights
from services.engine.model.slicing import hole_for
from services.shard_stage.probe.host_lock import host_lock
from services.shard_stage.probe.kept_model import KeptModel
from services.shard_stage.probe.slice_cache import SliceCache
from services.shard_stage.probe.step_costs import step_costs
from services.shard_stage.settings import StageModelSection

PROBE_STEPS = 4
LEAST_ROUNDS, MOST_ROUNDS = 3, 12
AGREEING_ROUNDS, AGREE = 2, 1.05
"""So many rounds have to have times that differ by no more than this factor."""
PROBE_CUTS = 4
PROBE_CONTEXT_TOKENS = 64  # at least PROBE_STEPS * MOST_ROUNDS
NANOSECONDS_PER_MS = 1e6
MS_PER_S = 1e3

log = get_logger("shard_stage.capability")


class Speed(NamedTuple):
    """Milliseconds of one layer, and of norm and output matrix, for a token of one sequence; and what more of
    them in a step cost, where a model can be cut and is on the processor."""

    layer_ms: float
    last_ms: float
    step_costs: tuple[StepCost, ...] = ()


@dataclass(frozen=True)
class ModelSource:
    """A model that slices are made of, and what the lease says of it. One that is `kept` elsewhere is read
    from there; `path` is the name of its first file then. `gpu_layers` is as in the stage's settings."""

    path: Path
    shardable: Shardable
    kept: KeptModel | None = None
    gpu_layers: int = 0

    @property
    def content(self) -> Path | ByteSource:
        """Where its bytes are."""
        return self.path if self.kept is None else self.kept.source

    @property
    def size_bytes(self) -> int:
        """The size of the whole model."""
        return size_of(self.path) if self.kept is None else self.kept.size


def open_source(
    model: StageModelSection, slices: SliceCache, threads: int, gpu_layers: int = 0
) -> ModelSource:
    """Checks a model's file and measures its layers. Blocks; raises ModelUnusable with the reason."""
    header = check_model_file(model.path)
    sha256 = checksum(model.path, model.sha256)

    def slice_of(layers: range) -> Path:
        return slices.slice_of(model.path, sha256, layers)

    speed = _measured_alone(header, slice_of, slices.folder, threads, gpu_layers)
    shardable = shardable_of(model, sha256, header, speed)
    return ModelSource(model.path, shardable, gpu_layers=gpu_layers)


def open_kept_source(
    model: StageModelSection, kept: KeptModel, slices: SliceCache, threads: int, gpu_layers: int = 0
) -> ModelSource:
    """The same for a model of the store, of which only the header is read: layers of its shapes are measured.
    Blocks; raises ModelUnusable, and PullFailed if nobody sends the header."""
    if model.sha256 not in (None, kept.sha256):
        raise ModelUnusable(
            f"{model.path} has the SHA-256 {kept.sha256}, it should be {model.sha256}", field="path"
        )
    try:
        header = kept.checked()
    except GgufFault as fault:
        raise ModelUnusable(f"{model.path} is not usable: {fault}", field="path") from fault
    zeros = kept.without_weights()
    made: list[Path] = []

    def without_weights(layers: range) -> Path:
        made.append(slices.without_weights(zeros, kept.sha256, layers))
        return made[-1]

    try:
        speed = _measured_alone(header, without_weights, slices.folder, threads, gpu_layers)
    finally:
        for path in made:
            path.unlink(missing_ok=True)
    shardable = shardable_of(model, kept.sha256, header, speed)
    return ModelSource(Path(kept.file), shardable, kept, gpu_layers)


def shardable_of(model: StageModelSection, sha256: str, header: GgufHeader, speed: Speed) -> Shardable:
    """The entry of a model in the lease."""
    layers = layer_count(header)
    architecture = header.text("general.architecture") or ""
    repacking = Repacking(header)
    first_bytes, last_bytes = _end_bytes(header, repacking)
    return Shardable(
        name=model.name,
        sha256=sha256,
        architecture=architecture,
        layers=layers,
        cuts=allowed_cuts(header),
        width=header.integer(f"{architecture}.embedding_length") or 1,
        context_tokens=min(model.context_tokens, header.integer(f"{architecture}.context_length") or 32),
        layer_bytes=_layer_bytes(header, layers, repacking.taken_bytes),
        first_bytes=first_bytes,
        last_bytes=last_bytes,
        cell_bytes=cell_bytes(header),
        layer_ms=speed.layer_ms,
        last_ms=speed.last_ms,
        step_costs=speed.step_costs,
    )


def _layer_bytes(
    header: GgufHeader, layers: int, bytes_of: Callable[[TensorInfo], int] = tensor_nbytes
) -> tuple[int, ...]:
    sizes = [0] * layers
    for tensor in header.tensors:
        in_layer = LAYER_TENSOR.fullmatch(tensor.name)
        if in_layer and int(in_layer[1]) < layers:
            sizes[int(in_layer[1])] += bytes_of(tensor)
    return tuple(sizes)


def _end_bytes(header: GgufHeader, repacking: Repacking) -> tuple[int, int]:
    """What the embeddings take in the first slice, and the output matrix in the last one: each stands for the
    other there too, or beside a hole where llama.cpp insists on both."""
    if OUTPUT not in architecture_of(header).needs_output:
        at_an_end = repacking.taken_at_an_end_bytes
        first_bytes = _bytes_of(header, EMBEDDINGS, at_an_end)
        return first_bytes, _bytes_of(header, OUTPUT, at_an_end) or first_bytes

    def hole_bytes(tensor: TensorInfo) -> int:
        return hole_for(tensor).nbytes

    first_bytes, last_bytes = (
        _bytes_of(header, own, repacking.taken_bytes) + _bytes_of(header, other, hole_bytes)
        for own, other in ((EMBEDDINGS, OUTPUT), (OUTPUT, EMBEDDINGS))
    )
    return first_bytes, last_bytes


def _bytes_of(header: GgufHeader, name: str, bytes_of: Callable[[TensorInfo], int] = tensor_nbytes) -> int:
    return sum(bytes_of(tensor) for tensor in header.tensors if tensor.name == name)


def _measured_alone(
    header: GgufHeader, slice_of: Callable[[range], Path], folder: Path, threads: int, gpu_layers: int
) -> Speed:
    with host_lock(folder) as mine:
        if not mine:
            log.warning("others of this host measure for long, so this one measures beside them")
        return _measured(header, slice_of, threads, gpu_layers)


def _measured(header: GgufHeader, slice_of: Callable[[range], Path], threads: int, gpu_layers: int) -> Speed:
    """The speed by a short first and the shortest last slice, timed in turns. A model that cannot be cut is
    one slice, whose layers share its time."""
    layers = layer_count(header)
    cuts = allowed_cuts(header)
    if not cuts:
        (whole_ms,) = _steps_ms([slice_of(range(layers))], threads, gpu_layers)
        return Speed(whole_ms / layers, 0.0)
    cut = cuts[min(len(cuts), PROBE_CUTS) - 1]
    first, last = slice_of(range(cut)), slice_of(range(cuts[-1], layers))
    first_ms, last_ms = _steps_ms([first, last], threads, gpu_layers)
    layer_ms = first_ms / cut
    last_ms = max(0.0, last_ms - layer_ms * (layers - cuts[-1]))
    return Speed(
        layer_ms, last_ms, () if gpu_layers else step_costs(first, last, threads, first_ms / MS_PER_S)
    )


def _steps_ms(paths: Sequence[Path], threads: int, gpu_layers: int) -> list[float]:
    """The milliseconds in which each of some slices evaluates one token of one sequence."""
    size = {"slots": 1, "context_tokens": PROBE_CONTEXT_TOKENS, "batch_tokens": 1, "threads": threads}
    with ExitStack() as open_stages:
        stages = [
            open_stages.enter_context(StageContext(Weights(path, gpu_layers=gpu_layers), **size))
            for path in paths
        ]

        def round_ms(number: int) -> list[float]:
            positions = range(number * PROBE_STEPS, (number + 1) * PROBE_STEPS)
            return [min(_timed_step_ms(stage, position) for position in positions) for stage in stages]

        return settled_ms(round_ms)


def settled_ms(round_ms: Callable[[int], Sequence[float]]) -> list[float]:
    """The shortest times of a measurement in rounds; `round_ms` takes the number of a round, from 0 on.

    What else runs on a host only makes times longer. There are rounds until the shortest time of each thing
    has nearly been reached twice, and MOST_ROUNDS at most: then the log says that they scatter.
    """
    rounds: list[Sequence[float]] = []
    for number in range(MOST_ROUNDS):
        rounds.append(round_ms(number))
        shortest = [sorted(times)[:AGREEING_ROUNDS] for times in zip(*rounds, strict=True)]
        if len(rounds) >= LEAST_ROUNDS and all(last <= AGREE * first for first, *_, last in shortest):
            break
    else:
        log.warning("the speed of layers scatters: others compute on this host", shortest_ms=shortest)
    return [first for first, *_ in shortest]


def _timed_step_ms(stage: StageContext, position: int) -> float:
    width = stage.weights.width
    inputs = np.zeros(1, np.int32) if stage.origin.is_first else np.ones((1, width), np.float32)
    rows = Rows.of([RowGroup(0, position, inputs)])
    started_ns = time.perf_counter_ns()
    stage.evaluate(rows, [0] if stage.origin.is_last else [])
    return (time.perf_counter_ns() - started_ns) / NANOSECONDS_PER_MS

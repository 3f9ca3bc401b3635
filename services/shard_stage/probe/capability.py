"""The capability of an instance: each model's shape, and how fast its layers are here."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schemas.pipelines import Shardable
from services.chassis.logs import get_logger
from services.engine.decode.context import CACHE_TYPE_BYTES, cache_types_of, head_size_of
from services.engine.decode.rows import Part, Rows
from services.engine.decode.stage_context import StageContext
from services.engine.model.cuts import allowed_cuts, layer_count
from services.engine.model.gguf_check import check_model_file, tensor_nbytes
from services.engine.model.gguf_header import GgufHeader
from services.engine.model.model import Weights
from services.engine.model.slicing import EMBEDDINGS, LAYER_TENSOR, OUTPUT
from services.shard_stage.probe.host_lock import host_lock
from services.shard_stage.probe.slice_cache import SliceCache, checksum
from services.shard_stage.settings import StageModelSection

PROBE_STEPS = 12
PROBE_CUTS = 4
PROBE_CONTEXT_TOKENS = 64
NANOSECONDS_PER_MS = 1e6

log = get_logger("shard_stage.offer")


@dataclass(frozen=True)
class ModelSource:
    """A model file that slices are made of, and what the lease says of it."""

    path: Path
    shardable: Shardable


def open_source(model: StageModelSection, slices: SliceCache, threads: int) -> ModelSource:
    """Checks a model's file and measures its layers. Blocks; raises ModelUnusable with the reason."""
    header = check_model_file(model.path)
    sha256 = checksum(model.path, model.sha256)
    cuts = allowed_cuts(header)
    with host_lock(slices.folder) as mine:
        if not mine:
            log.warning("others of this host measure for long, so this one measures beside them")
        layer_ms, last_ms = _measured_ms(model.path, sha256, header, slices, threads)
    layers = layer_count(header)
    architecture = header.text("general.architecture") or ""
    shardable = Shardable(
        name=model.name,
        sha256=sha256,
        architecture=architecture,
        layers=layers,
        cuts=cuts,
        width=header.integer(f"{architecture}.embedding_length") or 1,
        context_tokens=min(model.context_tokens, header.integer(f"{architecture}.context_length") or 32),
        layer_bytes=_layer_bytes(header, layers),
        first_bytes=_bytes_of(header, EMBEDDINGS),
        last_bytes=_bytes_of(header, OUTPUT) or _bytes_of(header, EMBEDDINGS),
        cell_bytes=cell_bytes(header),
        layer_ms=layer_ms,
        last_ms=last_ms,
    )
    return ModelSource(model.path, shardable)


def cell_bytes(header: GgufHeader) -> int:
    """What keys and values of one token take in one layer, in the cache of a stage."""
    architecture = header.text("general.architecture")
    heads = header.integer(f"{architecture}.attention.head_count") or 1
    key_value_heads = header.integer(f"{architecture}.attention.head_count_kv") or heads
    numbers = head_size_of(header) * key_value_heads
    return round(numbers * sum(map(CACHE_TYPE_BYTES.__getitem__, cache_types_of(header))))


def _layer_bytes(header: GgufHeader, layers: int) -> tuple[int, ...]:
    sizes = [0] * layers
    for tensor in header.tensors:
        in_layer = LAYER_TENSOR.fullmatch(tensor.name)
        if in_layer and int(in_layer[1]) < layers:
            sizes[int(in_layer[1])] += tensor_nbytes(tensor)
    return tuple(sizes)


def _bytes_of(header: GgufHeader, name: str) -> int:
    return sum(tensor_nbytes(tensor) for tensor in header.tensors if tensor.name == name)


def _measured_ms(
    path: Path, sha256: str, header: GgufHeader, slices: SliceCache, threads: int
) -> tuple[float, float]:
    """Milliseconds of one layer, and of norm and output matrix, for a token: a short first and the shortest
    last slice, timed. A model that cannot be cut is one slice, whose layers share its time."""
    layers = layer_count(header)
    cuts = allowed_cuts(header)
    if not cuts:
        whole_ms = _step_ms(slices.slice_of(path, sha256, range(layers)), threads)
        return whole_ms / layers, 0.0
    cut = cuts[min(len(cuts), PROBE_CUTS) - 1]
    first_ms = _step_ms(slices.slice_of(path, sha256, range(cut)), threads)
    last_ms = _step_ms(slices.slice_of(path, sha256, range(cuts[-1], layers)), threads)
    layer_ms = first_ms / cut
    return layer_ms, max(0.0, last_ms - layer_ms * (layers - cuts[-1]))


def _step_ms(path: Path, threads: int) -> float:
    """The median milliseconds in which a slice evaluates one token of one sequence."""
    size = {"slots": 1, "context_tokens": PROBE_CONTEXT_TOKENS, "batch_tokens": 1, "threads": threads}
    with StageContext(Weights(path), **size) as stage:
        timings = [_timed_step_ns(stage, position) for position in range(PROBE_STEPS)]
    return statistics.median(timings[1:]) / NANOSECONDS_PER_MS


def _timed_step_ns(stage: StageContext, position: int) -> int:
    width = stage.weights.width
    inputs = np.zeros(1, np.int32) if stage.origin.is_first else np.ones((1, width), np.float32)
    rows = Rows.of([Part(0, position, inputs)])
    started_ns = time.perf_counter_ns()
    stage.evaluate(rows, [0] if stage.origin.is_last else [])
    return time.perf_counter_ns() - started_ns

"""Where a model may be cut: what llama.cpp takes from a layer's index and from their number stays true."""

from __future__ import annotations

from itertools import combinations
from math import lcm

from schemas.errors import InvalidRequest, ModelUnusable
from services.engine.model.architectures.table import (
    ARCHITECTURES,
    REFUSED,
    Architecture,
    LayerCount,
    trunk_layers,
    windows_of,
)
from services.engine.model.gguf.header import GgufHeader

GEMMAS_WITH_TWO_SCALES = ("gemma2", "gemma3")
SIZES_OF_WINDOWS = ("attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa")


def architecture_of(header: GgufHeader) -> Architecture:
    """The entry of a model's architecture; raises ModelUnusable, with the reason, where it has none."""
    name = header.text("general.architecture") or ""
    if name not in ARCHITECTURES:
        reason = REFUSED.get(name, f"that was tried with none; with these it was: {', '.join(ARCHITECTURES)}")
        raise ModelUnusable(f"models of the architecture {name} cannot be cut into stages: {reason}")
    return ARCHITECTURES[name]


def layer_count(header: GgufHeader) -> int:
    """How many layers a token goes through in a checked model."""
    return trunk_layers(header)


def allowed_cuts(header: GgufHeader) -> tuple[int, ...]:
    """The layers, without the first, at which a slice may begin; every two of them, and the ends, make a
    slice. Raises ModelUnusable for a model that cannot be cut at all."""
    architecture = architecture_of(header)
    _check_can_be_cut(header)
    count = layer_count(header)
    misleading = _misleading_counts(header)
    possible = _between_windows(header)
    least = lcm(architecture.index_period, _step(header, architecture))
    for period in range(least, count, least):
        cuts = tuple(cut for cut in possible if cut % period == 0)
        slices = (pair for pair in combinations((0, *cuts, count), 2) if misleading)
        if not any(told.is_met_by(end - start) for start, end in slices for told in misleading):
            return cuts
    return ()


def check_layers(header: GgufHeader, layers: range) -> None:
    """Raises InvalidRequest, naming the cuts that are possible, unless `layers` are a slice of the model."""
    count = layer_count(header)
    if layers == range(count):
        architecture_of(header)
        return
    cuts = allowed_cuts(header)
    inside = layers.step == 1 and 0 <= layers.start < layers.stop <= count
    if not inside or not {layers.start, layers.stop} <= {0, *cuts, count}:
        asked = f"layers {layers.start} to {layers.stop - 1} of {count} are not a slice of this model"
        raise InvalidRequest(f"{asked}: {_in_words(cuts)}", field="layers")


def even_layers(header: GgufHeader, stages: int) -> tuple[range, ...]:
    """As many slices as there are stages, of lengths as equal as the allowed cuts make possible; raises
    InvalidRequest where there are not that many."""
    count, cuts = layer_count(header), allowed_cuts(header)
    most = len(cuts) + 1
    if not 1 <= stages <= most:
        asked = f"this model of {count} layers has 1 to {most} stages, not {stages}"
        raise InvalidRequest(f"{asked}: {_in_words(cuts)}", field="stages")
    blocks = (0, *cuts, count)
    starts = [blocks[stage * most // stages] for stage in range(stages)]
    return tuple(range(start, end) for start, end in zip(starts, (*starts[1:], count), strict=True))


def _check_can_be_cut(header: GgufHeader) -> None:
    name, count = header.text("general.architecture"), layer_count(header)
    for told in _telling_counts(header):
        if told.is_met_by(count) and not told.can_be_said:
            reason = f"llama.cpp takes one with so many layers for {told.meaning}, and a slice has fewer"
            raise ModelUnusable(f"{name} with {count} layers cannot be cut: {reason}")
    if any(f"{name}.{key}" in header.metadata for key in SIZES_OF_WINDOWS):
        reason = (
            "llama.cpp asks the first layer for the size of heads, and layers with a window have another size"
        )
        raise ModelUnusable(f"this {name} cannot be cut: {reason}")
    if header.integer(f"{name}.n_deepstack_layers"):
        raise ModelUnusable(f"this {name} cannot be cut: its first layers are given images beside the text")
    if name == "llama4" and header.integer(f"{name}.attention.sliding_window") == 0:
        reason = "llama.cpp leaves positions out of its last layer, which it takes from their number"
        raise ModelUnusable(f"llama4 without a sliding window cannot be cut: {reason}")


def _telling_counts(header: GgufHeader) -> tuple[LayerCount, ...]:
    """The numbers of layers that mean something for this model. Gemma's 27B scale is another only where the
    heads together are not as wide as the model."""
    name = header.text("general.architecture")
    if name in GEMMAS_WITH_TWO_SCALES:
        width, heads, key = (
            header.integer(f"{name}.{number}")
            for number in ("embedding_length", "attention.head_count", "attention.key_length")
        )
        if width and heads and key in (None, width // heads):
            return ()
    return architecture_of(header).layer_counts


def _misleading_counts(header: GgufHeader) -> tuple[LayerCount, ...]:
    """The numbers of layers that a slice must not have: those that mean what the model is not."""
    counts = _telling_counts(header)
    meant = {told.meaning for told in counts if told.is_met_by(layer_count(header))}
    return tuple(told for told in counts if told.meaning not in meant)


def _between_windows(header: GgufHeader) -> tuple[int, ...]:
    """The layers at which slices may begin so that each has a layer with a sliding window, if any has."""
    windows = windows_of(header)[: layer_count(header)]
    if not any(windows):
        return tuple(range(1, layer_count(header)))
    return tuple(layer for layer, has_one in enumerate(windows) if has_one and any(windows[:layer]))


def _step(header: GgufHeader, architecture: Architecture) -> int:
    """The period that the file itself names, 1 where there is none."""
    if architecture.step_key is None:
        return 1
    return max(1, header.integer(f"{header.text('general.architecture')}.{architecture.step_key}") or 1)


def _in_words(cuts: tuple[int, ...]) -> str:
    return f"slices may begin at the layers {', '.join(map(str, (0, *cuts)))}" if cuts else "it cannot be cut"

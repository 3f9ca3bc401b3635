"""The table of architectures that can be cut into slices, and where.

A cut must keep true what llama.cpp takes from a layer's index.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.errors import InvalidRequest, ModelUnusable
from services.engine.model.gguf_header import GgufHeader


@dataclass(frozen=True, slots=True)
class Architecture:
    """What matters of an architecture for slices of it.

    `window_period`: layers with and without a sliding window alternate with this period, by the layer's
    index.
    `scales_input`: hidden states that are fed in are multiplied by the root of the width, as embeddings are.
    """

    window_period: int = 1
    scales_input: bool = False


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(),
    "qwen2": Architecture(),
    "phi3": Architecture(),
    "gemma2": Architecture(window_period=2, scales_input=True),
}
# Gemma 2 27B: llama.cpp tells it by its number of layers, and scales its attention otherwise.
GEMMA2_27B_LAYERS = 46


def architecture_of(header: GgufHeader) -> Architecture:
    """The entry of a model's architecture; raises ModelUnusable where it is not one that can be cut."""
    name = header.text("general.architecture")
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelUnusable(f"models of the architecture {name} cannot be cut into stages; {known} can")
    return ARCHITECTURES[name]


def layer_count(header: GgufHeader) -> int:
    """How many layers a checked model has."""
    return header.integer(f"{header.text('general.architecture')}.block_count") or 0


def allowed_cuts(header: GgufHeader) -> tuple[int, ...]:
    """The layers, without the first, at which a slice may begin."""
    return tuple(range(_period(header), layer_count(header), _period(header)))


def check_layers(header: GgufHeader, layers: range) -> None:
    """Raises InvalidRequest, naming the cuts that are possible, unless `layers` are a slice of the model."""
    count = layer_count(header)
    ends = {0, *allowed_cuts(header), count}
    inside = layers.step == 1 and 0 <= layers.start < layers.stop <= count
    if not inside or not {layers.start, layers.stop} <= ends:
        asked = f"layers {layers.start} to {layers.stop - 1} of {count} are not a slice of this model"
        raise InvalidRequest(f"{asked}: {_cuts_in_words(header)}", field="layers")
    if _is_gemma2(header) and len(layers) != count and GEMMA2_27B_LAYERS in (len(layers), count):
        reason = "llama.cpp takes the scale of its attention from that number"
        raise ModelUnusable(f"gemma2 with {GEMMA2_27B_LAYERS} layers cannot be cut: {reason}")


def even_layers(header: GgufHeader, stages: int) -> tuple[range, ...]:
    """As many slices as there are stages, of lengths as equal as the allowed cuts make possible; raises
    InvalidRequest where there are not that many."""
    count, cuts = layer_count(header), allowed_cuts(header)
    most = len(cuts) + 1
    if not 1 <= stages <= most:
        asked = f"this model of {count} layers has 1 to {most} stages, not {stages}"
        raise InvalidRequest(f"{asked}: {_cuts_in_words(header)}", field="stages")
    blocks = (0, *cuts, count)
    starts = [blocks[stage * most // stages] for stage in range(stages)]
    return tuple(range(start, end) for start, end in zip(starts, (*starts[1:], count), strict=True))


def _period(header: GgufHeader) -> int:
    """The period of the layers: that which the model's file names, 1 where the file lists every layer."""
    key = f"{header.text('general.architecture')}.attention.sliding_window_pattern"
    period = architecture_of(header).window_period
    if period == 1 or header.array(key) is not None:
        return 1
    return max(1, header.integer(key) or period) if key in header.metadata else period


def _is_gemma2(header: GgufHeader) -> bool:
    return header.text("general.architecture") == "gemma2"


def _cuts_in_words(header: GgufHeader) -> str:
    cuts = allowed_cuts(header)
    return f"slices may begin at the layers {', '.join(map(str, (0, *cuts)))}" if cuts else "it cannot be cut"

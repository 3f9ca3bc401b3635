"""Weights that llama.cpp keeps in a form of its own for this processor, and what they take of memory then.

While a file is loaded, blocks of some types are rewritten ("repacked") in as much room, so that several rows
are multiplied at a time: this goes with the choices of ggml/src/ggml-cpu/repack.cpp for x86 and ARM. (What a
library for GPUs leaves to the processor stays as it is.) Of a file that is mapped the bytes that were
rewritten stay in memory too; so a file of which most is rewritten is better read.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.engine.model.architectures.table import EMBEDDINGS, LAYER_TENSOR, OUTPUT, trunk_layers
from services.engine.model.gguf.check import tensor_nbytes
from services.engine.model.gguf.header import GgufHeader, TensorInfo
from services.engine.model.gguf.tables import TensorType

FORMS = (
    ({"AVX2"}, 8, (TensorType.Q4_0, TensorType.Q4_K, TensorType.IQ4_NL, TensorType.MXFP4)),
    ({"AVX512"}, 8, (TensorType.Q2_K,)),
    ({"NEON", "DOTPROD"}, 4, (TensorType.Q4_0, TensorType.Q8_0, TensorType.IQ4_NL, TensorType.MXFP4)),
    ({"NEON", "DOTPROD"}, 8, (TensorType.Q4_K, TensorType.Q5_K, TensorType.Q6_K)),
)
"""What a processor has to have, how many rows are written together, and the types."""
LOOKED_UP = {EMBEDDINGS, "position_embd.weight", "token_types.weight", "per_layer_token_embd.weight"}
"""Of these rows are taken; nothing is multiplied by them."""
EXPERTS = "exps."


class Repacking:
    """How the weights of a file come into memory: `mapped`, or read."""

    def __init__(self, header: GgufHeader) -> None:
        self._together = rows_together()
        rewritten = {tensor.name: tensor_nbytes(tensor) for tensor in self._rewritten(header)}
        # Of embeddings that stand for the output matrix too, single rows are taken from what the file has.
        beside = {name: size for name, size in rewritten.items() if name == EMBEDDINGS}
        instead = sum(rewritten.values()) - sum(beside.values())
        self.mapped = 2 * instead <= sum(map(tensor_nbytes, header.tensors))
        self._copies = rewritten if self.mapped else beside

    @property
    def copies_bytes(self) -> int:
        """What the weights take beyond the file's size."""
        return sum(self._copies.values())

    def taken_bytes(self, tensor: TensorInfo) -> int:
        """What a tensor of the file takes."""
        return tensor_nbytes(tensor) + self._copies.get(tensor.name, 0)

    def taken_at_an_end_bytes(self, tensor: TensorInfo) -> int:
        """What it takes as embeddings and output matrix in one, as slices have it at their ends."""
        return tensor_nbytes(tensor) * (2 if self._fits(tensor) else 1)

    def _rewritten(self, header: GgufHeader) -> Iterator[TensorInfo]:
        layers = trunk_layers(header)
        looked_up = LOOKED_UP - {EMBEDDINGS} if _has_tied_output(header) else LOOKED_UP
        for tensor in header.tensors:
            in_layer = LAYER_TENSOR.fullmatch(tensor.name)
            used = tensor.name not in looked_up and (in_layer is None or int(in_layer[1]) < layers)
            if used and self._fits(tensor):
                yield tensor

    def _fits(self, tensor: TensorInfo) -> bool:
        """Whether it is a matrix, or those of experts together, in whole rows; what some architectures have
        for each head is never rewritten."""
        is_matrix = len(tensor.dimensions) == (3 if EXPERTS in tensor.name else 2)
        rows = self._together.get(tensor.type_id)
        return is_matrix and rows is not None and tensor.dimensions[1] % rows == 0


def rows_together() -> dict[int, int]:
    """By the types that are rewritten on this processor: how many rows together, of which a matrix has to
    have a multiple."""
    import llama_cpp  # an agent starts without it

    from services.engine.model.build import extra_buffers_are_safe, features

    has = features()
    if "REPACK" not in has or not extra_buffers_are_safe() or llama_cpp.llama_supports_gpu_offload():
        return {}
    return {kind.value: rows for needed, rows, kinds in FORMS if needed <= has for kind in kinds}


def _has_tied_output(header: GgufHeader) -> bool:
    causal = header.metadata.get(f"{header.text('general.architecture')}.attention.causal")
    return causal is not False and all(tensor.name != OUTPUT for tensor in header.tensors)

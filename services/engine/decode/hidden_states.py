"""Takes hidden states out of llama.cpp's graph while it is evaluated.

llama.cpp's own embeddings come after the final norm, which is too late at the end of a stage. Its
evaluation callback is asked of every tensor of the graph; the last layer's output is the one that is taken,
and there the evaluation ends: the norm and the output matrix are not computed.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from schemas.errors import GenerationFailed

Hidden = npt.NDArray[np.float32]


class HiddenTap:
    """Takes the output of layer `layer`, of up to `rows` tokens, in an evaluation at a time."""

    def __init__(self, layer: int, *, width: int, rows: int) -> None:
        self._name = f"l_out-{layer}".encode()
        self._states: Hidden = np.empty((rows, width), dtype=np.float32)
        self._expected_bytes = 0
        self._taken_bytes = 0
        self._ggml = ggml()
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self._on_tensor)

    def expect(self, rows: int) -> None:
        """Says, before an evaluation, of how many tokens it is."""
        self._expected_bytes = self._states[:rows].nbytes
        self._taken_bytes = 0

    def taken(self) -> Hidden:
        """The states, shape (rows, width), in an array of their own; raises GenerationFailed where the
        graph had no such tensor."""
        if not self._expected_bytes or self._taken_bytes != self._expected_bytes:
            found = f"{self._taken_bytes} bytes of {self._name.decode()}, not {self._expected_bytes}"
            raise GenerationFailed(f"llama.cpp showed {found}")
        return self._states[: self._expected_bytes // self._states.strides[0]].copy()

    def _on_tensor(self, tensor: int, ask: bool, _user_data: int | None) -> bool:
        """Asked: whether this tensor is wanted. Not asked: takes it, and answers that this was all."""
        if ask:
            return bool(self._ggml.ggml_get_name(tensor) == self._name)
        self._taken_bytes = self._ggml.ggml_nbytes(tensor)
        if self._taken_bytes == self._expected_bytes:
            self._ggml.ggml_backend_tensor_get(tensor, self._states.ctypes.data, 0, self._taken_bytes)
        return False


@lru_cache(maxsize=1)
def ggml() -> Any:
    """The library of tensors that llama.cpp itself uses, which llama_cpp does not wrap."""
    folder = Path(llama_cpp.__file__).parent / "lib"
    library = ctypes.CDLL(str(min(folder.glob("*ggml-base.*"), key=lambda path: len(path.name))))
    library.ggml_get_name.argtypes = [ctypes.c_void_p]
    library.ggml_get_name.restype = ctypes.c_char_p
    library.ggml_nbytes.argtypes = [ctypes.c_void_p]
    library.ggml_nbytes.restype = ctypes.c_size_t
    library.ggml_backend_tensor_get.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_size_t,
    ]
    library.ggml_backend_tensor_get.restype = None
    return library

"""Takes hidden states out of llama.cpp's graph while it is evaluated, and puts such into it.

llama.cpp's own embeddings come after the final norm, which is too late at the end of a stage. Its
evaluation callback is asked of every tensor of the graph; the last layer's output is the one that is taken,
and there the evaluation ends: the norm and the output matrix are not computed. Where llama.cpp would not take
hidden states in the place of embeddings, or would scale them, the callback writes them into the graph.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from schemas.errors import GenerationFailed

Hidden = npt.NDArray[np.float32]


class HiddenTap:
    """Takes the output of layer `layer`, of up to `rows` tokens, in an evaluation at a time. Before that it
    puts states into the graph, in the place of what llama.cpp has computed as the tensor `entry`. Either may
    be None."""

    def __init__(self, layer: int | None, *, width: int, rows: int, entry: str | None = None) -> None:
        self._exit = f"l_out-{layer}".encode() if layer is not None else None
        self._entry = entry.encode() if entry else None
        self._wanted = {name for name in (self._exit, self._entry) if name}
        self._states: Hidden = np.empty((rows, width), dtype=np.float32)
        self._put: deque[Hidden] = deque()
        self._all_fitted = True
        self._expected_bytes = 0
        self._taken_bytes = 0
        self._ggml = ggml()
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self._on_tensor)

    @property
    def takes(self) -> bool:
        """Whether it takes states, and so ends the evaluation before the output matrix."""
        return self._exit is not None

    @property
    def puts(self) -> bool:
        """Whether it has to be told of the states that go in."""
        return self._entry is not None

    def put(self, pieces: Iterable[Hidden]) -> None:
        """Says, before an evaluation, what goes in: the states of each piece that is evaluated at once."""
        self._put = deque(np.ascontiguousarray(piece) for piece in pieces)
        self._all_fitted = True

    def check_put(self) -> None:
        """Raises GenerationFailed after an evaluation into which not all states went, each in its place."""
        if self._put or not self._all_fitted:
            raise GenerationFailed(f"llama.cpp has cut a step into other pieces than {self._entry!r} has")

    def expect(self, rows: int) -> None:
        """Says, before an evaluation, of how many tokens it is."""
        self._expected_bytes = self._states[:rows].nbytes
        self._taken_bytes = 0

    def taken(self) -> Hidden:
        """The states, shape (rows, width), in an array of their own; raises GenerationFailed where the
        graph had no such tensor."""
        if not self._expected_bytes or self._taken_bytes != self._expected_bytes:
            found = f"{self._taken_bytes} bytes of {self._exit!r}, not {self._expected_bytes}"
            raise GenerationFailed(f"llama.cpp showed {found}")
        return self._states[: self._expected_bytes // self._states.strides[0]].copy()

    def _on_tensor(self, tensor: int, ask: bool, _user_data: int | None) -> bool:
        """Asked: whether this tensor is wanted. Not asked: takes or fills it; answers whether to go on."""
        name = self._ggml.ggml_get_name(tensor)
        if ask:
            return name in self._wanted
        nbytes = self._ggml.ggml_nbytes(tensor)
        if name == self._entry:
            states = self._put.popleft() if self._put else None
            self._all_fitted &= states is not None and states.nbytes == nbytes
            if states is not None and self._all_fitted:
                self._ggml.ggml_backend_tensor_set(tensor, states.ctypes.data, 0, nbytes)
            return self._all_fitted
        self._taken_bytes = nbytes
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
    for copies in (library.ggml_backend_tensor_get, library.ggml_backend_tensor_set):
        copies.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
        copies.restype = None
    return library

"""The GPUs that llama.cpp sees, with their memory: weights and cells go there if `gpu_layers` says so.

The functions are of ggml-backend.h, which llama_cpp does not wrap.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

DEDICATED, INTEGRATED = 1, 2
"""GGML_BACKEND_DEVICE_TYPE_GPU with memory of its own, and _IGPU with the host's."""


@dataclass(frozen=True)
class GpuDevice:
    """One device, by llama.cpp's name ("CUDA0"); the bytes are as of the look."""

    name: str
    free_bytes: int
    total_bytes: int


Devices = Callable[[], tuple[GpuDevice, ...]]


def gpu_devices() -> tuple[GpuDevice, ...]:
    """The GPUs as of now; none in a library that was built for the processor alone. As in llama.cpp, one
    with the host's memory counts only where there is no other."""
    library = _library()
    handles = [library.ggml_backend_dev_get(number) for number in range(library.ggml_backend_dev_count())]
    of_kind = {kind: [one for one in handles if library.ggml_backend_dev_type(one) == kind]
               for kind in (DEDICATED, INTEGRATED)}  # fmt: skip
    return tuple(_device(library, one) for one in of_kind[DEDICATED] or of_kind[INTEGRATED])


def free_bytes(devices: tuple[GpuDevice, ...]) -> int:
    """What is free on all of them together: llama.cpp spreads layers over them by that."""
    return sum(device.free_bytes for device in devices)


def total_bytes(devices: tuple[GpuDevice, ...]) -> int:
    """What they have together."""
    return sum(device.total_bytes for device in devices)


def _device(library: Any, handle: int) -> GpuDevice:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    library.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
    name = library.ggml_backend_dev_name(handle) or b"GPU"
    return GpuDevice(name.decode(errors="replace"), free.value, total.value)


@lru_cache(maxsize=1)
def _library() -> Any:
    """ggml's registry of devices, which llama.cpp itself uses."""
    import llama_cpp  # an agent of servers never needs it

    llama_cpp.llama_backend_init()
    folder = Path(llama_cpp.__file__).parent / "lib"
    names = [path for path in folder.glob("*ggml.*") if path.suffix in (".so", ".dylib", ".dll")]
    library = ctypes.CDLL(str(min(names, key=lambda path: len(path.name))))
    library.ggml_backend_dev_count.restype = ctypes.c_size_t
    library.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    library.ggml_backend_dev_get.restype = ctypes.c_void_p
    for ask in (library.ggml_backend_dev_type, library.ggml_backend_dev_name):
        ask.argtypes = [ctypes.c_void_p]
    library.ggml_backend_dev_type.restype = ctypes.c_int
    library.ggml_backend_dev_name.restype = ctypes.c_char_p
    sizes = ctypes.POINTER(ctypes.c_size_t)
    library.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, sizes, sizes]
    library.ggml_backend_dev_memory.restype = None
    return library

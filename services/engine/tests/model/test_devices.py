"""The GPUs that llama.cpp sees. The library is a stand-in where a test needs one: none was at hand."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import pytest

from services.engine.model import devices
from services.engine.model.devices import GpuDevice, free_bytes, gpu_devices, total_bytes
from services.engine.model.memory.need import gpu_part

PROCESSOR, GPU, INTEGRATED, ACCELERATOR = range(4)


class Registry:
    """What the functions of ggml's registry say of devices: (name, kind, free, total)."""

    def __init__(self, *found: tuple[str, int, int, int]) -> None:
        self._found = found

    def ggml_backend_dev_count(self) -> int:
        """How many there are."""
        return len(self._found)

    def ggml_backend_dev_get(self, number: int) -> int:
        """A handle."""
        return number

    def ggml_backend_dev_type(self, handle: int) -> int:
        """Of ggml_backend_dev_type."""
        return self._found[handle][1]

    def ggml_backend_dev_name(self, handle: int) -> bytes:
        """Such as CUDA0."""
        return self._found[handle][0].encode()

    def ggml_backend_dev_memory(self, handle: int, free: Any, total: Any) -> None:
        """Writes both numbers."""
        free._obj.value, total._obj.value = self._found[handle][2:]


def test_there_are_gpus_where_the_library_was_built_for_one() -> None:
    assert bool(gpu_devices()) == bool(llama_cpp.llama_supports_gpu_offload())
    # And what it says of the processor can be read
    library = devices._library()
    names = [library.ggml_backend_dev_name(library.ggml_backend_dev_get(number))
             for number in range(library.ggml_backend_dev_count())]  # fmt: skip
    assert b"CPU" in names
    processor = devices._device(library, library.ggml_backend_dev_get(names.index(b"CPU")))
    assert 0 < processor.free_bytes <= processor.total_bytes < 2 ** (8 * ctypes.sizeof(ctypes.c_size_t) - 1)


def test_memory_of_all_gpus_counts_and_that_of_the_host_only_where_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = (("CPU", PROCESSOR, 7, 70), ("BLAS", ACCELERATOR, 7, 70), ("Vulkan0", INTEGRATED, 5, 50))
    found = Registry(*host, ("CUDA0", GPU, 1, 10), ("CUDA1", GPU, 2, 20))
    monkeypatch.setattr(devices, "_library", lambda: found)
    assert gpu_devices() == (GpuDevice("CUDA0", 1, 10), GpuDevice("CUDA1", 2, 20))
    assert (free_bytes(gpu_devices()), total_bytes(gpu_devices())) == (3, 30)
    monkeypatch.setattr(devices, "_library", lambda: Registry(*host))
    assert gpu_devices() == (GpuDevice("Vulkan0", 5, 50),)
    monkeypatch.setattr(devices, "_library", lambda: Registry(*host[:2]))
    assert gpu_devices() == ()


def test_the_part_of_a_model_that_lies_on_gpus_goes_by_its_layers() -> None:
    parts = {layers: gpu_part(1_000, 40, layers) for layers in (0, 10, 40, 99, -1)}
    assert parts == {0: 0, 10: 250, 40: 1_000, 99: 1_000, -1: 1_000}
    assert gpu_part(1_000, 0, 5) == 1_000

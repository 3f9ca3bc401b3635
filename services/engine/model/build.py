"""The build of llama.cpp's library: what it was compiled with."""

from __future__ import annotations

from functools import lru_cache

import llama_cpp

AMX = "AMX_INT8"
OPENMP = "OPENMP"


@lru_cache(maxsize=1)
def features() -> frozenset[str]:
    """The instruction sets and parts that are compiled in, in the library's own words: "AVX2", "OPENMP"."""
    said: str = llama_cpp.llama_print_system_info().decode()
    parts = said.replace("CPU :", "").split("|")
    names_and_values = [part.partition(" = ")[::2] for part in parts]
    return frozenset(name.strip() for name, value in names_and_values if value.strip() == "1")


def extra_buffers_are_safe() -> bool:
    """Whether weights may be kept in forms of their own for this processor (`use_extra_bufts`).

    Not with AMX: GCC up to 12 compiles llama.cpp's code for it wrongly (`_tile_loadconfig` of its
    amxtileintrin.h reads 64 bytes and says 8, so that the others are never written), and the process ends
    at the first batch of two tokens. Its sums are also others for one token than for several.
    """
    return AMX not in features()

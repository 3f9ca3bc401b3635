"""The tables of the format, as the `gguf` package has them: types of values and tensors, sizes of blocks.

The package takes numpy and a fifth of a second with it; what checks a file at its start needs neither. So its
module of constants, which imports nothing of it, is read alone.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType


def _constants() -> ModuleType:
    package = find_spec("gguf")
    found = PathFinder.find_spec("constants", package.submodule_search_locations) if package else None
    if found is None or found.loader is None:
        raise ImportError("the package gguf has no module constants: install gguf as pyproject.toml says")
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


_found = _constants()
MAGIC: bytes = _found.GGUF_MAGIC.to_bytes(4, "little")
VERSION: int = _found.GGUF_VERSION
DEFAULT_ALIGNMENT: int = _found.GGUF_DEFAULT_ALIGNMENT
ValueType = _found.GGUFValueType
TensorType = _found.GGMLQuantizationType
BLOCK_SIZES: dict[int, tuple[int, int]] = _found.GGML_QUANT_SIZES
"""Numbers in a block and its bytes, by the type of a tensor."""
FILE_TYPES: dict[int, str] = {
    kind.value: kind.name.removeprefix("ALL_").removeprefix("MOSTLY_")
    for kind in _found.LlamaFileType
    if kind is not _found.LlamaFileType.GUESSED
}
"""Names of quantisations, by the `general.file_type` of a file: "Q4_K_M"."""

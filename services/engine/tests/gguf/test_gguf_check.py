from __future__ import annotations

import ctypes
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_cpp import _ggml

from infra.demo_models.bench_model import write_bench_model
from infra.testing.made_models.random_models import RECIPES, write_random_model
from schemas.errors import ModelUnusable
from services.engine.model.gguf.check import RUNNABLE_TYPES, check_model, check_model_file
from services.engine.model.gguf.header import GgufFault, GgufHeader
from services.engine.tests.gguf.bytes_source import BytesSource

F64, I32, UNKNOWN_TYPE = 28, 26, 77
MAX_MEMORY_BYTES = 8 << 20

Edit = Callable[[gguf.GGUFWriter], None]


def write_model(path: Path, edit: Edit = lambda writer: None, *, architecture: str = "llama") -> Path:
    """A small file with the keys that are asked for, changed by `edit`."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_context_length(64)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), dtype=np.float32))
    edit(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def patched(path: Path, tensor: str, place: int, value: bytes) -> Path:
    """The file with bytes of a tensor's description replaced; `place` counts from behind its name."""
    content = bytearray(path.read_bytes())
    start = content.index(tensor.encode()) + len(tensor) + place
    content[start : start + len(value)] = value
    path.write_bytes(content)
    return path


def test_a_good_model_passes_and_its_header_is_returned(model_path: Path) -> None:
    header = check_model_file(model_path)
    assert isinstance(header, GgufHeader)


def test_block_sizes_are_those_of_llama_cpp() -> None:
    library = _ggml.libggml
    library.ggml_type_size.restype = ctypes.c_size_t
    library.ggml_blck_size.restype = ctypes.c_int64
    library.ggml_type_name.restype = ctypes.c_char_p
    for type_id, (name, block, block_bytes) in RUNNABLE_TYPES.items():
        assert library.ggml_type_name(type_id).decode().upper() == name
        assert (library.ggml_blck_size(type_id), library.ggml_type_size(type_id)) == (block, block_bytes)


@pytest.mark.parametrize("type_id", [F64, I32, UNKNOWN_TYPE])
def test_types_that_crash_llama_cpp_are_refused(tmp_path: Path, type_id: int) -> None:
    path = patched(
        write_model(tmp_path / "odd.gguf"), "token_embd.weight", 4 + 16, struct.pack("<I", type_id)
    )
    with pytest.raises(ModelUnusable, match=r"odd\.gguf is not usable: tensor 'token_embd.weight' has type"):
        check_model_file(path)


def test_a_tensor_off_its_alignment_is_refused(tmp_path: Path) -> None:
    path = patched(write_model(tmp_path / "m.gguf"), "token_embd.weight", 4 + 16 + 4, struct.pack("<Q", 8))
    with pytest.raises(ModelUnusable, match="not aligned"):
        check_model_file(path)


def test_tensors_on_top_of_one_another_are_refused(tmp_path: Path) -> None:
    def second(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("output.weight", np.zeros((4, 32), dtype=np.float32))

    path = patched(
        write_model(tmp_path / "m.gguf", second), "output.weight", 4 + 16 + 4, struct.pack("<Q", 0)
    )
    with pytest.raises(ModelUnusable, match="overlaps"):
        check_model_file(path)


def test_rows_that_are_not_whole_blocks_are_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf")
    patched(path, "token_embd.weight", 4, struct.pack("<Q", 33))
    patched(path, "token_embd.weight", 4 + 16, struct.pack("<I", 8))
    with pytest.raises(ModelUnusable, match="whole blocks"):
        check_model_file(path)


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda w: w.add_uint32("general.alignment", 3), "power of two"),
        (lambda w: w.add_uint32("split.count", 2), "split model"),
        (lambda w: w.add_token_list(["a", "b"]) or w.add_token_types([1]), "token_type does not fit"),
        (lambda w: w.add_token_list(["a", "b"]) or w.add_token_scores([0.0]), "scores does not fit"),
        (lambda w: w.add_token_list(["a", "b"]) or w.add_bos_token_id(9), "not a token of the vocabulary"),
        (lambda w: w.add_array("tokenizer.ggml.tokens", [1, 2]), "not a list of strings"),
        (lambda w: w.add_token_list(["a", "", "", "a"]), "there twice"),
        (lambda w: w.add_layer_norm_rms_eps(-1e-5), "epsilon is -9"),
        (lambda w: w.add_rope_freq_base(float("nan")), "freq_base is nan"),
    ],
)
def test_metadata_that_llama_cpp_would_believe_is_refused(
    tmp_path: Path, edit: Edit, fault: str | None
) -> None:
    path = write_model(tmp_path / "m.gguf", edit)
    if fault is None:
        check_model_file(path)
        return
    with pytest.raises(ModelUnusable, match=fault):
        check_model_file(path)


def test_a_file_without_sizes_of_its_model_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf")
    path.write_bytes(path.read_bytes().replace(b"llama.block_count", b"llama.block_xxxxx"))
    with pytest.raises(ModelUnusable, match=r"llama\.block_count is None"):
        check_model_file(path)


def test_a_folder_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match="cannot be read"):
        check_model_file(tmp_path)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model small enough to be damaged thousands of times."""
    path = write_bench_model(tmp_path_factory.mktemp("fuzz") / "m.gguf", layers=1, width=32)
    return path.read_bytes()


def outcome(content: bytes) -> str:
    """What the check says: "fine" or the fault. Anything but a GgufFault fails the test."""
    try:
        check_model(BytesSource(content))
    except GgufFault as fault:
        return str(fault)
    return "fine"


def test_a_file_cut_anywhere_is_refused(content: bytes) -> None:
    header = check_model(BytesSource(content))
    places = {
        *range(0, header.data_offset, 7),
        *range(header.data_offset, len(content), 997),
        len(content) - 1,
    }
    assert all(outcome(content[:place]) != "fine" for place in places)


@settings(max_examples=300)
@given(place=st.floats(0, 1, exclude_max=True), value=st.binary(min_size=1, max_size=12))
def test_bytes_changed_anywhere_are_a_fault_or_harmless(content: bytes, place: float, value: bytes) -> None:
    start = int(place * 6_000)
    assert outcome(content[:start] + value + content[start + len(value) :])


def test_huge_numbers_anywhere_cost_no_memory(content: bytes) -> None:
    places = random.Random(7).sample(range(4, 6_000), 150)
    tracemalloc.start()
    for place in places:
        for number in (2**63 - 1, 2**32 - 1, 2**24):
            assert outcome(content[:place] + struct.pack("<Q", number) + content[place + 8 :])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MAX_MEMORY_BYTES


def test_a_split_model_is_known_by_its_first_part_and_needs_all_of_them_in_their_order(
    tmp_path: Path,
) -> None:
    whole = write_random_model(tmp_path / "whole.gguf", "qwen2", RECIPES["qwen2"])
    write_random_model(tmp_path / "split.gguf", "qwen2", RECIPES["qwen2"], split_tensors=20)
    first, second, third, *_ = parts = sorted(tmp_path.glob("split-*"))
    found, expected = check_model_file(first), check_model_file(whole)
    assert {tensor.name for tensor in found.tensors} == {tensor.name for tensor in expected.tensors}
    assert found.metadata == expected.metadata

    with pytest.raises(
        ModelUnusable, match=f"it is part 2 of {len(parts)}; a split model is known by its first"
    ):
        check_model_file(second)
    kept = second.read_bytes()
    second.write_bytes(third.read_bytes())
    with pytest.raises(ModelUnusable, match=f"split.no and split.count are 2 and {len(parts)}, not 1 and"):
        check_model_file(first)
    second.write_bytes(kept[:-1])
    with pytest.raises(ModelUnusable, match="the file is truncated"):
        check_model_file(first)
    second.unlink()
    with pytest.raises(ModelUnusable, match=f"{second.name} is not beside it"):
        check_model_file(first)

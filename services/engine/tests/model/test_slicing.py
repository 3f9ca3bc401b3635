"""Slices as files: what is in them, what was read for them, and what is refused."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.testing.made_models.random_models import RECIPES, Recipe, Shape, write_random_model
from infra.testing.made_models.variants import (
    DEMO_MODELS,
    demo_model,
    fixture_model,
    random_q8_0,
    write_variant,
)
from schemas.errors import InvalidRequest, ModelUnusable
from services.engine import Engine
from services.engine.model.gguf.check import check_model_file, tensor_nbytes
from services.engine.model.gguf.header import (
    WINDOW_BYTES,
    FileSource,
    GgufFault,
    GgufHeader,
    MetadataValue,
)
from services.engine.model.slicing import SliceOrigin, slice_file, slice_origin, write_slice
from services.engine.tests.gguf.bytes_source import BytesSource

SHA256 = "5a" * 32
WIDTH, VOCABULARY = 192, 2560


def tensors_of(path: Path) -> dict[str, tuple[tuple[int, ...], int, bytes]]:
    """Shape, type and bytes of every tensor, as gguf-py reads them."""
    return {
        tensor.name: (tuple(tensor.shape.tolist()), int(tensor.tensor_type), tensor.data.tobytes())
        for tensor in gguf.GGUFReader(path).tensors
    }


def metadata_of(path: Path) -> dict[str, object]:
    """The metadata, as gguf-py reads it."""
    fields = gguf.GGUFReader(path).fields
    return {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")}


def sliced(model: Path, layers: range, folder: Path) -> Path:
    """A slice of a model in `folder`."""
    path = folder / f"{model.stem}-{layers.start}-{layers.stop}.gguf"
    slice_file(model, layers, path)
    return path


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Qwen demo model with an output matrix and bias of its own."""
    tensors = {
        "output.weight": random_q8_0(VOCABULARY, WIDTH),
        "output.bias": np.linspace(-1, 1, VOCABULARY, dtype=np.float32),
    }
    return write_variant(demo_model("qwen"), tmp_path_factory.mktemp("m") / "untied.gguf", tensors=tensors)


@pytest.mark.parametrize("name", DEMO_MODELS)
def test_every_layer_is_in_exactly_one_slice_byte_for_byte(name: str, tmp_path: Path) -> None:
    whole = tensors_of(demo_model(name))
    put_together = {}
    for layers in (range(0, 2), range(2, 4)):
        for tensor, content in tensors_of(sliced(demo_model(name), layers, tmp_path)).items():
            if tensor.startswith("blk."):
                _, index, rest = tensor.split(".", 2)
                put_together[f"blk.{int(index) + layers.start}.{rest}"] = content
    assert put_together == {tensor: whole[tensor] for tensor in whole if tensor.startswith("blk.")}


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi3"])
def test_models_that_are_not_quantised_are_cut_the_same_way(architecture: str, tmp_path: Path) -> None:
    whole = tensors_of(fixture_model(architecture))
    last = tensors_of(sliced(fixture_model(architecture), range(1, 2), tmp_path))
    assert {name.replace("blk.0.", "blk.1.") for name in last} <= set(whole)
    assert all(last[name] == whole[name.replace("blk.0.", "blk.1.")] for name in last)


def test_a_first_slice_has_the_embeddings_and_the_vocabulary(untied: Path, tmp_path: Path) -> None:
    path = sliced(untied, range(0, 1), tmp_path)
    whole, first = tensors_of(untied), tensors_of(path)
    beside_layers = {name: content for name, content in first.items() if not name.startswith("blk.")}
    assert beside_layers == {name: whole[name] for name in ("token_embd.weight", "output_norm.weight")}
    assert metadata_of(path)["tokenizer.ggml.tokens"] == metadata_of(untied)["tokenizer.ggml.tokens"]


def test_a_middle_slice_has_no_vocabulary_and_a_single_row_of_embeddings(
    untied: Path, tmp_path: Path
) -> None:
    path = sliced(untied, range(1, 3), tmp_path)
    whole, middle, metadata = tensors_of(untied), tensors_of(path), metadata_of(path)
    beside_layers = {name: content for name, content in middle.items() if not name.startswith("blk.")}
    _, type_id, rows = whole["token_embd.weight"]
    row = ((WIDTH, 1), type_id, rows[: len(rows) // VOCABULARY])
    assert beside_layers == {
        "token_embd.weight": row,
        "output_norm.weight": whole["output_norm.weight"],
    }
    assert {key for key in metadata if key.startswith("tokenizer.")} == {"tokenizer.ggml.model"}
    assert (metadata["tokenizer.ggml.model"], metadata["qwen2.vocab_size"]) == ("none", 1)


def test_the_output_matrix_of_a_last_slice_stands_where_llama_cpp_looks_for_embeddings(
    untied: Path, tmp_path: Path
) -> None:
    whole, last = tensors_of(untied), tensors_of(sliced(untied, range(3, 4), tmp_path))
    assert last["token_embd.weight"] == whole["output.weight"]
    assert last["output.bias"] == whole["output.bias"]
    assert "output.weight" not in last


def test_a_last_slice_of_a_tied_model_has_the_embeddings(tmp_path: Path) -> None:
    whole = tensors_of(demo_model("llama"))
    last = tensors_of(sliced(demo_model("llama"), range(3, 4), tmp_path))
    assert last["token_embd.weight"] == whole["token_embd.weight"]


def test_a_slice_of_all_layers_is_the_model(untied: Path, tmp_path: Path) -> None:
    path = sliced(untied, range(4), tmp_path)
    assert tensors_of(path) == tensors_of(untied)
    ours = {key: value for key, value in metadata_of(path).items() if not key.startswith("choir.slice.")}
    assert ours == metadata_of(untied)


def test_what_the_metadata_says_of_every_layer_is_sliced_too(tmp_path: Path) -> None:
    lists = {"feed_forward_length": [384] * 4, "attention.head_count_kv": [3, 4, 5, 6]}
    model = write_variant(demo_model("llama"), tmp_path / "lists.gguf", metadata=lists)
    metadata = metadata_of(sliced(model, range(1, 3), tmp_path))
    assert metadata["llama.attention.head_count_kv"] == [4, 5]
    assert metadata["llama.feed_forward_length"] == [384, 384]
    assert metadata["llama.block_count"] == 2


def test_an_empty_list_is_left_out(tmp_path: Path) -> None:
    """The entry is as long as tensors are aligned, so nothing else moves."""
    content = demo_model("llama").read_bytes()
    tensors, entries = struct.unpack_from("<QQ", content, 8)
    empty = struct.pack("<Q8sIIQ", 8, b"odd.list", gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING, 0)
    model = tmp_path / "m.gguf"
    model.write_bytes(content[:8] + struct.pack("<QQ", tensors, entries + 1) + empty + content[24:])
    assert "odd.list" in check_model_file(model).metadata
    slices = [metadata_of(sliced(one, range(0, 2), tmp_path)) for one in (model, demo_model("llama"))]
    assert [one.pop("choir.slice.source_sha256") for one in slices]
    assert slices[0] == slices[1]


def test_an_array_that_is_not_one_number_for_each_layer_is_refused(tmp_path: Path) -> None:
    lists = {"attention.head_count_kv": [3, 3, 3]}
    model = write_variant(demo_model("llama"), tmp_path / "lists.gguf", metadata=lists)
    with pytest.raises(
        ModelUnusable, match=r"head_count_kv is not an array of a number for each of 4 layers"
    ):
        sliced(model, range(1, 3), tmp_path)


def test_tensors_that_all_layers_share_are_in_every_slice(tmp_path: Path) -> None:
    factors = {"rope_freqs.weight": np.ones(16, dtype=np.float32)}
    model = write_variant(demo_model("llama"), tmp_path / "m.gguf", tensors=factors)
    for layers in (range(0, 1), range(1, 2), range(2, 4)):
        assert "rope_freqs.weight" in tensors_of(sliced(model, layers, tmp_path))


def test_a_slice_says_where_it_comes_from(tmp_path: Path) -> None:
    model = demo_model("phi")
    said = slice_file(model, range(1, 4), tmp_path / "s.gguf")
    assert said == slice_origin(check_model_file(tmp_path / "s.gguf"))
    assert said == SliceOrigin(hashlib.sha256(model.read_bytes()).hexdigest(), 1, 4, 4)
    assert (said.is_first, said.is_last) == (False, True)
    assert slice_origin(check_model_file(model)) is None


def test_the_same_source_and_layers_give_the_same_bytes_and_nothing_else_is_left(tmp_path: Path) -> None:
    one, two = tmp_path / "one.gguf", tmp_path / "two.gguf"
    two.write_bytes(b"something older")
    for path in (one, two):
        slice_file(demo_model("gemma"), range(2, 4), path)
    assert one.read_bytes() == two.read_bytes()
    assert sorted(tmp_path.iterdir()) == [one, two]


class RecordingSource(BytesSource):
    """Bytes that remember what was read of them."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.was_read = np.zeros(len(content), dtype=bool)

    def read(self, offset: int, length: int) -> bytes:
        self.was_read[offset : offset + length] = True
        return super().read(offset, length)


def test_only_the_header_and_the_slice_s_own_tensors_are_read(tmp_path: Path) -> None:
    source = RecordingSource(demo_model("llama").read_bytes())
    write_slice(source, range(1, 2), tmp_path / "s.gguf", source_sha256=SHA256)

    header = check_model_file(demo_model("llama"))
    needed = np.zeros(source.size, dtype=bool)
    needed[: header.data_offset] = True
    for tensor in header.tensors:
        start = header.data_offset + tensor.offset
        if tensor.name.startswith("blk.1.") or tensor.name == "output_norm.weight":
            needed[start : start + tensor_nbytes(tensor)] = True
        elif tensor.name == "token_embd.weight":
            needed[start : start + tensor_nbytes(tensor) // VOCABULARY] = True
    # The reader of headers reads ahead, past their end.
    unneeded = np.flatnonzero(source.was_read & ~needed)
    assert (source.was_read | ~needed).all()
    assert (unneeded < header.data_offset + WINDOW_BYTES).all()
    assert source.was_read.sum() < source.size // 2


def test_what_a_slice_never_computes_with_is_a_hole_that_is_read_from_nowhere(tmp_path: Path) -> None:
    """Where llama.cpp insists on an output matrix of its own beside the embeddings."""
    recipe = replace(RECIPES["stablelm"], layers=2, shape=Shape(width=256, heads=8, vocabulary=4096))
    model = write_random_model(tmp_path / "m.gguf", "stablelm", recipe)
    nbytes = {tensor.name: tensor_nbytes(tensor) for tensor in check_model_file(model).tensors}
    layer = sum(size for name, size in nbytes.items() if name.startswith("blk.1."))
    source = RecordingSource(model.read_bytes())
    write_slice(source, range(1, 2), tmp_path / "last.gguf", source_sha256=SHA256)
    needed = layer + nbytes["output.weight"]
    assert needed < source.was_read.sum() < needed + nbytes["token_embd.weight"] / 8
    _, type_id, hole = tensors_of(tmp_path / "last.gguf")["token_embd.weight"]
    assert (type_id, len(hole), any(hole)) == (gguf.GGMLQuantizationType.IQ1_S, 50 * 4096, False)
    assert 512 * (tmp_path / "last.gguf").stat().st_blocks < needed + len(hole) / 2


def test_a_slice_that_is_fetched_by_ranges_is_that_of_the_file(tmp_path: Path) -> None:
    model = demo_model("qwen")
    of_file = sliced(model, range(1, 3), tmp_path)
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    write_slice(
        RecordingSource(model.read_bytes()), range(1, 3), tmp_path / "fetched.gguf", source_sha256=sha256
    )
    assert (tmp_path / "fetched.gguf").read_bytes() == of_file.read_bytes()


def test_a_source_that_ends_early_leaves_no_file(tmp_path: Path) -> None:
    class Ending(BytesSource):
        def read(self, offset: int, length: int) -> bytes:
            return super().read(offset, length if offset < self.size // 2 else length - 1)

    source = Ending(demo_model("llama").read_bytes())
    with pytest.raises(ModelUnusable, match=r"cannot be sliced: \d+ of \d+ bytes came from byte"):
        write_slice(source, range(3, 4), tmp_path / "s.gguf", source_sha256=SHA256)
    assert list(tmp_path.iterdir()) == []


def test_cuts_that_the_architecture_does_not_allow_are_named(tmp_path: Path) -> None:
    model = write_random_model(tmp_path / "m.gguf", "smollm3", Recipe(layers=6))
    with pytest.raises(InvalidRequest, match="slices may begin at the layers 0, 4"):
        slice_file(model, range(0, 1), tmp_path / "s.gguf")
    assert list(tmp_path.iterdir()) == [model]


def test_a_slice_is_not_sliced_again(tmp_path: Path) -> None:
    first = sliced(demo_model("llama"), range(0, 2), tmp_path)
    with pytest.raises(ModelUnusable, match="a slice of a model already"):
        slice_file(first, range(0, 1), tmp_path / "again.gguf")


def test_a_slice_does_not_pass_for_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match="it is a slice of a model, for a stage of a pipeline"):
        Engine.load(sliced(demo_model("llama"), range(0, 2), tmp_path))


def test_a_tensor_that_is_not_known_is_refused_instead_of_lost(tmp_path: Path) -> None:
    odd = {"altogether.new": np.ones(16, dtype=np.float32)}
    model = write_variant(demo_model("llama"), tmp_path / "odd.gguf", tensors=odd)
    with pytest.raises(ModelUnusable, match=r"'altogether\.new' belongs to no layer"):
        slice_file(model, range(0, 1), tmp_path / "s.gguf")


def test_a_tensor_of_a_layer_that_is_not_there_is_refused(tmp_path: Path) -> None:
    odd = {"blk.4.attn_norm.weight": np.ones(WIDTH, dtype=np.float32)}
    model = write_variant(demo_model("llama"), tmp_path / "odd.gguf", tensors=odd)
    with pytest.raises(ModelUnusable, match="is of none of its 4 layers"):
        slice_file(model, range(0, 1), tmp_path / "s.gguf")


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"nowhere\.gguf cannot be read: No such file"):
        slice_file(tmp_path / "nowhere.gguf", range(0, 1), tmp_path / "s.gguf")
    with pytest.raises(ModelUnusable, match=r"s\.gguf cannot be written: No such file"):
        slice_file(demo_model("llama"), range(0, 1), tmp_path / "nowhere" / "s.gguf")


@pytest.mark.parametrize("sha256", ["", "5A" * 32, "5a" * 31, "5a" * 32 + "\n"])
def test_a_checksum_that_is_none_is_refused(sha256: str, tmp_path: Path) -> None:
    with FileSource(demo_model("llama")) as source, pytest.raises(ModelUnusable, match="not the SHA-256"):
        write_slice(source, range(0, 1), tmp_path / "s.gguf", source_sha256=sha256)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"choir.slice.source_sha256": "abc"}, "incomplete"),
        ({"choir.slice.first_layer": "one"}, "incomplete"),
        ({"choir.slice.first_layer": 2}, "claims layers 2 to 2 of 4 and has 2"),
        ({"choir.slice.end_layer": 5}, "claims layers 1 to 4 of 4"),
    ],
)
def test_a_slice_that_contradicts_itself_is_a_fault(changed: dict[str, MetadataValue], fault: str) -> None:
    metadata: dict[str, MetadataValue] = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "choir.slice.source_sha256": SHA256,
        "choir.slice.first_layer": 1,
        "choir.slice.end_layer": 3,
        "choir.slice.source_layers": 4,
    }
    assert slice_origin(GgufHeader(3, metadata, {}, (), 32, 0))
    with pytest.raises(GgufFault, match=fault):
        slice_origin(GgufHeader(3, {**metadata, **changed}, {}, (), 32, 0))


@given(st.integers(0, 6_000), st.binary(min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_a_damaged_header_is_sliced_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, position: int, damage: bytes
) -> None:
    content = bytearray(fixture_model("llama").read_bytes())
    content[position : position + len(damage)] = damage
    path = tmp_path_factory.getbasetemp() / "damaged-slice.gguf"
    try:
        write_slice(BytesSource(bytes(content)), range(0, 1), path, source_sha256=SHA256)
    except (ModelUnusable, InvalidRequest) as error:
        assert error.message

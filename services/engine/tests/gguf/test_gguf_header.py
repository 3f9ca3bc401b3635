from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.demo_models.bench_model import vocabulary
from services.engine.model.gguf.header import FileSource, GgufFault, read_header
from services.engine.tests.gguf.bytes_source import BytesSource


def test_metadata_and_tensors_are_read_without_the_data(model_path: Path) -> None:
    with FileSource(model_path) as source:
        header = read_header(source)
        tokens = header.array("tokenizer.ggml.tokens")
        assert tokens is not None
        assert list(tokens.read(source)) == [token.encode() for token in vocabulary()]
        assert tokens.longest_bytes == len("<|endoftext|>")
    assert header.text("general.architecture") == "llama"
    assert header.integer("llama.block_count") == 2
    assert header.tensors[0].name == "token_embd.weight"
    assert header.tensors[0].dimensions == (64, len(vocabulary()))
    assert header.data_offset % header.alignment == 0


def test_the_header_alone_is_enough_to_read_it(model_path: Path) -> None:
    with FileSource(model_path) as source:
        whole = read_header(source)
    assert read_header(BytesSource(model_path.read_bytes()[: whole.data_offset])) == whole


def test_numbers_of_an_array_can_be_read_later(model_path: Path) -> None:
    with FileSource(model_path) as source:
        types = read_header(source).array("tokenizer.ggml.token_type")
        assert types is not None
        assert list(types.read(source)).count(3) == 3


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "ends inside the magic"),
        (b"PK\x03\x04", "not a GGUF file"),
        (b"GGUF\x01\0\0\0", "version 1"),
        (b"GGUF\0\0\0\x03", "big-endian"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 8, "claims 18446744073709551615 tensors"),
    ],
)
def test_what_is_no_gguf_is_said_to_be_none(content: bytes, fault: str) -> None:
    with pytest.raises(GgufFault, match=fault):
        read_header(BytesSource(content))


@given(st.binary(max_size=400))
def test_arbitrary_bytes_after_the_preamble_are_a_fault_or_a_header(tail: bytes) -> None:
    try:
        read_header(BytesSource(b"GGUF\x03\0\0\0" + tail))
    except GgufFault as fault:
        assert str(fault)

"""The export is proven: llama.cpp computes from the exported file what torch computed from the model."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import pytest
from numpy.typing import NDArray

from infra.demo_models.checksums import model_path
from infra.demo_models.family import FAMILY
from infra.training import export_fixture, vocabulary
from infra.training.export import interleave_halves, part_halves

ARCHITECTURES = [member.architecture for member in FAMILY.values()]
# Both sides compute in float32, with sums in another order; the logits' standard deviation is 1.5.
# Gemma2's activation is GELU, which llama.cpp's CPU build looks up in a table of 16-bit floats.
LARGEST_DIFFERENCE = {"llama": 3e-5, "qwen2": 3e-5, "phi3": 3e-5, "gemma2": 5e-3}


def llama_cpp_logits(path: Path, tokens: list[int]) -> NDArray[np.float32]:
    """Logits of every position, with a key-value cache in float32."""
    llm = llama_cpp.Llama(
        str(path),
        n_ctx=64,
        n_threads=1,
        n_threads_batch=1,
        logits_all=True,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        flash_attn=False,
        verbose=False,
    )
    llm.eval(tokens)
    logits = np.array(llm.scores[: len(tokens)], dtype=np.float32)
    llm.close()
    return logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_llama_cpp_computes_the_logits_that_torch_computed(architecture: str) -> None:
    # Given a tiny exported model of random weights, and torch's logits for three sequences
    path = export_fixture.FIXTURES / f"{architecture}.gguf"
    stored = np.load(export_fixture.FIXTURES / export_fixture.LOGITS_FILE)
    size = stored[f"{architecture}-0"].shape[1]

    for index, tokens in enumerate(export_fixture.random_sequences(size)):
        # When llama.cpp computes them
        expected = stored[f"{architecture}-{index}"]
        found = llama_cpp_logits(path, tokens)

        # Then they agree, and are not trivially small
        assert expected.std() > 1.0
        assert np.abs(found - expected).max() < LARGEST_DIFFERENCE[architecture]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch: infra/training/README.md")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_exported_now_agrees_with_torch(architecture: str, tmp_path: Path) -> None:
    member = next(m for m in FAMILY.values() if m.architecture == architecture)
    small = export_fixture.write_small_vocabulary(tmp_path / "small.json")
    model = export_fixture.exported(member, small, tmp_path / "live.gguf")

    for tokens in export_fixture.sequences(small):
        found = llama_cpp_logits(tmp_path / "live.gguf", tokens)
        assert (
            np.abs(found - export_fixture.torch_logits(model, tokens)).max()
            < LARGEST_DIFFERENCE[architecture]
        )


def test_llama_cpp_takes_text_apart_exactly_as_the_tokenizers_library_does() -> None:
    # Given training text with the ids that the library gave it
    rows = (export_fixture.FIXTURES / export_fixture.TOKENS_FILE).read_text(encoding="utf-8").splitlines()
    llm = llama_cpp.Llama(str(model_path("choir-llama")), vocab_only=True, verbose=False)

    # When llama.cpp tokenises it, then every id is the same
    for row in map(json.loads, rows):
        assert llm.tokenize(row["text"].encode(), add_bos=False, special=True) == row["ids"], row["text"]
    assert len(rows) > 200


@pytest.mark.parametrize("name", FAMILY)
def test_a_model_file_says_what_it_is(name: str) -> None:
    fields = gguf.GGUFReader(model_path(name)).fields
    card = {key: fields[f"general.{key}"].contents() for key in ("name", "author", "license", "architecture")}

    assert card == {
        "name": name,
        "author": "The Choir developers",
        "license": "mit",
        "architecture": FAMILY[name].architecture,
    }
    assert all(subject in fields["general.description"].contents() for subject in FAMILY[name].own)
    assert fields["tokenizer.chat_template"].contents() == vocabulary.CHAT_TEMPLATE
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False


def test_halves_of_a_head_are_interleaved() -> None:
    rows = np.arange(8, dtype=np.float32).reshape(8, 1)
    assert interleave_halves(rows, heads=2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_parting_halves_undoes_interleaving_them() -> None:
    rows = np.arange(24, dtype=np.float32).reshape(12, 2)
    assert np.array_equal(part_halves(interleave_halves(rows, heads=3), heads=3), rows)

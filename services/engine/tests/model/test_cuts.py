"""Where a model may be cut."""

from __future__ import annotations

import logging
import re
import struct
from pathlib import Path

import llama_cpp
import pytest
from gguf import MODEL_ARCH_NAMES

from schemas.errors import InvalidRequest, ModelUnusable
from services.engine.model.architectures.table import ARCHITECTURES, REFUSED, UNTRIED
from services.engine.model.cuts import allowed_cuts, check_layers, even_layers, layer_count
from services.engine.model.gguf.header import GgufHeader, MetadataArray, MetadataValue
from services.engine.model.logs import LLAMA_LOG

PATTERN = "attention__sliding_window_pattern"


def header(architecture: str, layers: int, **more: MetadataValue) -> GgufHeader:
    """A header whose further keys are those of its architecture, with two underscores for a dot."""
    keys = {f"{architecture}.{key.replace('__', '.')}": value for key, value in more.items()}
    metadata = {"general.architecture": architecture, f"{architecture}.block_count": layers, **keys}
    return GgufHeader(3, metadata, {}, (), 32, 0)


def gemma(architecture: str, layers: int, width: int) -> GgufHeader:
    return header(
        architecture, layers, embedding_length=width, attention__head_count=32, attention__key_length=128
    )


def test_layers_that_are_all_alike_can_be_cut_anywhere() -> None:
    for architecture, entry in ARCHITECTURES.items():
        if entry.index_period == 1 and (not entry.window_period or entry.window_is_named):
            assert allowed_cuts(header(architecture, 5)) == (1, 2, 3, 4), architecture


def test_slices_begin_at_a_layer_with_a_window_since_llama_cpp_wants_one_in_each() -> None:
    window = {"attention__sliding_window": 8}
    assert allowed_cuts(header("gemma2", 7)) == allowed_cuts(header("gpt-oss", 7, **window)) == (2, 4, 6)
    assert allowed_cuts(header("gemma3", 14, **window)) == (1, 2, 3, 4, 6, 7, 8, 9, 10, 12, 13)
    assert allowed_cuts(header("olmo2", 6, **window)) == (1, 2, 4, 5)
    assert allowed_cuts(header("gemma2", 9, **{PATTERN: 3})) == (1, 3, 4, 6, 7)
    listed = MetadataArray(7, 5, 0, 5, 0, (False, False, True, False, True))
    assert allowed_cuts(header("gemma2", 5, **{PATTERN: listed})) == (4,)
    with pytest.raises(InvalidRequest, match="slices may begin at the layers 0, 2, 4, 6"):
        check_layers(header("gemma2", 8), range(0, 3))


def test_slices_begin_where_a_period_does_that_no_key_can_say() -> None:
    assert allowed_cuts(header("smollm3", 10)) == (4, 8)
    assert allowed_cuts(header("llama4", 24, interleave_moe_layer_step=2)) == (4, 8, 12, 16, 20)
    assert allowed_cuts(header("llama4", 24, interleave_moe_layer_step=3)) == (12,)
    with pytest.raises(InvalidRequest, match="slices may begin at the layers 0, 4") as caught:
        check_layers(header("smollm3", 8), range(0, 3))
    assert caught.value.field == "layers"
    with pytest.raises(InvalidRequest, match="it cannot be cut"):
        check_layers(header("smollm3", 4), range(0, 2))


def test_layers_that_predict_further_tokens_are_none_of_a_token_s_way() -> None:
    model = header("glm4moe", 6, nextn_predict_layers=1)
    assert layer_count(model) == 5 and allowed_cuts(model) == (1, 2, 3, 4)
    with pytest.raises(InvalidRequest, match="of 5 are not a slice"):
        check_layers(model, range(3, 6))


def test_no_slice_has_a_number_of_layers_that_llama_cpp_takes_for_another_model() -> None:
    for layers, named in ((60, (26, 27)), (61, (26, 27)), (47, (26, 27)), (100, (26, 27))):
        model = header("deepseek2", layers)
        ends = (0, *allowed_cuts(model), layers)
        lengths = {end - start for start in ends for end in ends if end > start}
        assert len(ends) > 5 and not lengths & set(named), layers
        with pytest.raises(InvalidRequest, match="not a slice of this model"):
            check_layers(model, range(0, 27))
    assert allowed_cuts(header("deepseek2", 27)) == tuple(range(1, 27))


def test_a_model_that_llama_cpp_tells_by_its_number_of_layers_is_refused_with_the_reason() -> None:
    for model, meaning in (
        (gemma("gemma2", 46, 4608), "46 layers cannot be cut: .* the 27B form"),
        (gemma("gemma3", 62, 5376), "62 layers cannot be cut: .* the 27B form"),
        (header("command-r", 64), r"Command R\+"),
        (header("command-r", 80), r"Command R\+"),
        (header("exaone4", 64), "has sliding windows"),
        (header("llama4", 48, attention__sliding_window=0), "leaves positions out"),
        (header("granite", 8, n_deepstack_layers=2), "images"),
        (header("gemma3", 8, rope__dimension_count_swa=64), "size of heads"),
    ):
        with pytest.raises(ModelUnusable, match=meaning):
            allowed_cuts(model)
        with pytest.raises(ModelUnusable, match=meaning):
            check_layers(model, range(0, 4))
        check_layers(model, range(layer_count(model)))
    assert len(allowed_cuts(gemma("gemma3", 62, 128 * 32))) == 61
    assert 46 not in {cut for cut in allowed_cuts(gemma("gemma2", 60, 4608))}


@pytest.mark.parametrize(
    "layers", [range(0), range(2, 2), range(-1, 2), range(2, 5), range(3, 1), range(0, 4, 2)]
)
def test_layers_that_are_no_range_of_the_model_are_refused(layers: range) -> None:
    with pytest.raises(InvalidRequest, match="of 4 are not a slice"):
        check_layers(header("llama", 4), layers)


def test_an_architecture_that_is_not_cut_is_refused_with_the_reason() -> None:
    assert not set(ARCHITECTURES) & set(REFUSED)
    for name, reason in (
        ("gemma3n", "gemma3n cannot be cut into stages: every layer is given an input of its own"),
        ("mamba", "keep a state that cannot be taken back"),
        ("baichuan", "from its number of layers"),
        ("bert", "no model that goes on with texts"),
        ("altogether-new", "that was tried with none; with these it was: apertus, arcee"),
    ):
        with pytest.raises(ModelUnusable, match=reason):
            check_layers(header(name, 4), range(0, 2))
        with pytest.raises(ModelUnusable, match=reason):
            allowed_cuts(header(name, 4))


@pytest.mark.parametrize("looks_for_others", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_every_architecture_that_the_pinned_llama_cpp_knows_is_cut_or_said_not_to_be(
    looks_for_others: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked to load a model of an architecture, it says if it knows that. All names are among the texts of
    its library; most are in the gguf package as well."""
    LLAMA_LOG.install()
    caplog.set_level(logging.CRITICAL, "llama.cpp")
    said = [*ARCHITECTURES, *REFUSED, *UNTRIED]
    assert len(set(said)) == len(said)
    library = Path(llama_cpp.llama_cpp._lib._name).read_bytes() if looks_for_others else b""
    texts = re.findall(rb"(?<=\0)[a-z][a-z0-9_.-]{1,24}(?=\0)", library)
    path, key, params = tmp_path / "m.gguf", b"general.architecture", llama_cpp.llama_model_default_params()
    known = set()
    for name in {*said, *MODEL_ARCH_NAMES.values(), *(text.decode() for text in texts)}:
        entry = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(name)) + name.encode()
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry + bytes(64))
        LLAMA_LOG.forget_errors()
        assert not llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        assert "error loading model" in LLAMA_LOG.first_error()
        if "unknown model architecture" not in LLAMA_LOG.first_error():
            known.add(name)
    assert (known - set(said), set(said) - known) == (set(), set())


def test_stages_are_as_even_as_the_cuts_make_possible() -> None:
    assert even_layers(header("llama", 8), 3) == (range(0, 2), range(2, 5), range(5, 8))
    assert even_layers(header("smollm3", 12), 2) == (range(0, 4), range(4, 12))
    assert even_layers(header("smollm3", 14), 4) == (range(0, 4), range(4, 8), range(8, 12), range(12, 14))
    assert even_layers(header("qwen2", 5), 1) == (range(5),)


@pytest.mark.parametrize("stages", [-1, 0, 3])
def test_more_stages_than_cuts_allow_are_refused_with_the_most_that_are_possible(stages: int) -> None:
    with pytest.raises(InvalidRequest, match=f"1 to 2 stages, not {stages}") as caught:
        even_layers(header("smollm3", 8), stages)
    assert caught.value.field == "stages"

"""Where a model may be cut."""

from __future__ import annotations

import pytest

from schemas.errors import InvalidRequest, ModelUnusable
from services.engine.model.cuts import allowed_cuts, check_layers, even_layers
from services.engine.model.gguf_header import GgufHeader, MetadataArray, MetadataValue

PATTERN = "gemma2.attention.sliding_window_pattern"


def header(architecture: str, layers: int, **more: MetadataValue) -> GgufHeader:
    metadata: dict[str, MetadataValue] = {
        "general.architecture": architecture,
        f"{architecture}.block_count": layers,
        **more,
    }
    return GgufHeader(3, metadata, {}, (), 32, 0)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi3"])
def test_layers_that_are_all_alike_can_be_cut_anywhere(architecture: str) -> None:
    assert allowed_cuts(header(architecture, 4)) == (1, 2, 3)


def test_gemma2_is_cut_at_even_layers_because_windows_alternate_by_index() -> None:
    assert allowed_cuts(header("gemma2", 7)) == (2, 4, 6)
    with pytest.raises(InvalidRequest, match="slices may begin at the layers 0, 2, 4, 6") as caught:
        check_layers(header("gemma2", 8), range(0, 3))
    assert caught.value.field == "layers"


def test_the_window_s_period_that_a_file_names_holds() -> None:
    assert allowed_cuts(header("gemma2", 9, **{PATTERN: 3})) == (3, 6)


def test_a_file_that_lists_the_windows_of_its_layers_can_be_cut_anywhere() -> None:
    assert allowed_cuts(header("gemma2", 3, **{PATTERN: MetadataArray(7, 3, 0, 3, 0)})) == (1, 2)


def test_a_gemma2_whose_attention_depends_on_its_number_of_layers_is_not_cut() -> None:
    with pytest.raises(ModelUnusable, match="46 layers cannot be cut"):
        check_layers(header("gemma2", 46), range(0, 20))
    with pytest.raises(ModelUnusable, match="46 layers cannot be cut"):
        check_layers(header("gemma2", 60), range(0, 46))
    check_layers(header("gemma2", 46), range(46))


@pytest.mark.parametrize(
    "layers", [range(0), range(2, 2), range(-1, 2), range(2, 5), range(3, 1), range(0, 4, 2)]
)
def test_layers_that_are_no_range_of_the_model_are_refused(layers: range) -> None:
    with pytest.raises(InvalidRequest, match="of 4 are not a slice"):
        check_layers(header("llama", 4), layers)


def test_an_architecture_that_is_not_known_to_survive_is_refused() -> None:
    with pytest.raises(ModelUnusable, match="architecture mamba cannot be cut into stages; llama"):
        check_layers(header("mamba", 4), range(0, 2))


def test_stages_are_as_even_as_the_cuts_make_possible() -> None:
    assert even_layers(header("llama", 8), 3) == (range(0, 2), range(2, 5), range(5, 8))
    assert even_layers(header("gemma2", 6), 2) == (range(0, 2), range(2, 6))
    assert even_layers(header("gemma2", 7), 4) == (range(0, 2), range(2, 4), range(4, 6), range(6, 7))
    assert even_layers(header("qwen2", 5), 1) == (range(5),)


@pytest.mark.parametrize("stages", [-1, 0, 3])
def test_more_stages_than_cuts_allow_are_refused_with_the_most_that_are_possible(stages: int) -> None:
    with pytest.raises(InvalidRequest, match=f"1 to 2 stages, not {stages}") as caught:
        even_layers(header("gemma2", 4), stages)
    assert caught.value.field == "stages"

"""The names of file types are those that everybody else uses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import pytest

from services.engine.model.gguf.check import check_model_file
from services.engine.model.gguf.quantisation import FILE_TYPES, quantisation_of

OTHERS = {
    number.value: number.name.removeprefix("MOSTLY_").removeprefix("ALL_")
    for number in gguf.LlamaFileType
    if number is not gguf.LlamaFileType.GUESSED
}


@pytest.mark.parametrize("number", FILE_TYPES)
def test_a_file_type_has_the_name_that_llama_cpp_gives_it(number: int) -> None:
    assert FILE_TYPES[number] == OTHERS[number]


def test_a_file_says_how_its_weights_are_stored(model_path: Path) -> None:
    assert quantisation_of(check_model_file(model_path)) == "Q8_0"


def test_of_a_file_type_that_nobody_knows_nothing_is_said(model_path: Path) -> None:
    header = check_model_file(model_path)
    unheard_of = replace(header, metadata={**header.metadata, "general.file_type": 4711})
    silent = replace(header, metadata={})
    assert [quantisation_of(odd) for odd in (unheard_of, silent)] == [None, None]

"""The names of file types are those that everybody else uses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from services.engine.model.gguf.check import check_model_file
from services.engine.model.gguf.tables import FILE_TYPES


@pytest.mark.parametrize(
    ("number", "name"), [(0, "F32"), (1, "F16"), (7, "Q8_0"), (15, "Q4_K_M"), (32, "BF16"), (38, "MXFP4_MOE")]
)
def test_a_file_type_has_the_name_that_people_know(number: int, name: str) -> None:
    assert FILE_TYPES[number] == name


def test_a_file_says_how_its_weights_are_stored(model_path: Path) -> None:
    assert check_model_file(model_path).quantisation == "Q8_0"


def test_of_a_file_type_that_nobody_knows_nothing_is_said(model_path: Path) -> None:
    header = check_model_file(model_path)
    unheard_of = replace(header, metadata={**header.metadata, "general.file_type": 4711})
    silent = replace(header, metadata={})
    assert [odd.quantisation for odd in (unheard_of, silent)] == [None, None]

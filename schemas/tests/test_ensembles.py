"""Ensembles with a name: what cannot be is refused by the field's name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.ensembles.named import Ensemble


def test_one_without_strategies_decides_by_majority() -> None:
    assert Ensemble(name="all").strategies == ("majority",)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"strategies": ("guess",)}, "strategies"),
        ({"strategies": ("average",)}, "strategies"),
        ({"members": ("a", "a")}, "members"),
        ({"members": ("a", "council")}, "members"),
        ({"members": ("a", "b"), "quorum": 3}, "quorum"),
    ],
)
def test_what_cannot_be_names_the_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Ensemble(name="council", **fields)
    assert raised.value.errors()[0]["ctx"]["field"] == field

"""What the bench of refusals says of two samples."""

from __future__ import annotations

import random

import pytest

from loadtest.bench.mesh.tenants.unknown_ids import difference


@pytest.mark.parametrize("later_us", [0.0, 40.0])
def test_the_interval_has_the_difference_of_the_medians_and_0_only_if_there_is_none(later_us: float) -> None:
    dice = random.Random(7)
    none = [dice.lognormvariate(7.0, 0.1) for _ in range(400)]
    another = [dice.lognormvariate(7.0, 0.1) + later_us for _ in range(400)]
    found = difference(another, none)
    assert found["low_us"] <= found["difference_us"] <= found["high_us"]
    assert found["low_us"] <= later_us <= found["high_us"]
    assert (found["low_us"] <= 0.0 <= found["high_us"]) == (later_us == 0.0)

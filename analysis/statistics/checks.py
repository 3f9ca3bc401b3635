"""Checks the input of statistics: numbers that are numbers, as many on one side as on the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from schemas.errors import InvalidRequest

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]


def scores(values: ArrayLike, field: str) -> Floats:
    """One finite number for each question, at least one; InvalidRequest if they are anything else."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidRequest(f"{field}: these are not numbers", field=field) from None
    if array.ndim != 1 or array.size == 0:
        raise InvalidRequest(
            f"{field}: one number for each question is needed, and at least one", field=field
        )
    if not np.isfinite(array).all():
        raise InvalidRequest(f"{field}: every score must be a finite number", field=field)
    return array


def paired(one: ArrayLike, other: ArrayLike) -> tuple[Floats, Floats]:
    """Two sets of scores of the same questions in the same order."""
    first, second = scores(one, "one"), scores(other, "other")
    if first.size != second.size:
        raise InvalidRequest(
            f"other: it has {second.size} questions and one has {first.size}; a pair needs the same ones",
            field="other",
        )
    return first, second


def right_or_wrong(values: ArrayLike, field: str) -> Booleans:
    """One True or False (1 or 0) for each question."""
    array = scores(values, field)
    if not np.isin(array, (0.0, 1.0)).all():
        raise InvalidRequest(f"{field}: each question must be right (1) or wrong (0)", field=field)
    return array.astype(np.bool_)


def paired_right_or_wrong(one: ArrayLike, other: ArrayLike) -> tuple[Booleans, Booleans]:
    """The same questions in the same order, each right or wrong on either side."""
    first, second = paired(one, other)
    return right_or_wrong(first, "one"), right_or_wrong(second, "other")


def share(value: float, field: str) -> float:
    """A number between 0 and 1, and neither of them."""
    if not 0.0 < value < 1.0:
        raise InvalidRequest(f"{field}: {value} is not between 0 and 1", field=field)
    return float(value)


def at_least(least: int, value: int, field: str) -> int:
    """A whole number that is not too small."""
    if value < least:
        raise InvalidRequest(f"{field}: {value} is less than {least}", field=field)
    return int(value)

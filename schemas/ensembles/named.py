"""Ensembles that have a name: whoever asks names one as a `model`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from schemas.ensembles.strategies import specs_of
from schemas.message import Name, Struct, field_error

MAX_MEMBERS = 64
MAX_ENSEMBLES = 200
"""The list of all models has room for so many."""


class Ensemble(Struct):
    """An ensemble under a name of its own: all models if `members` is empty.

    `strategies` decide, and the first one's text is the result's; `quorum` is how many answers are enough.
    """

    name: Name
    members: Annotated[tuple[Name, ...], Field(max_length=MAX_MEMBERS)] = ()
    strategies: Annotated[tuple[Name, ...], Field(min_length=1, max_length=16)] = ("majority",)
    quorum: Annotated[int, Field(ge=1, le=MAX_MEMBERS)] | None = None

    @model_validator(mode="after")
    def _possible(self) -> Ensemble:
        known = {spec.name: spec for spec in specs_of(self.strategies)}
        for strategy in self.strategies:
            if strategy not in known:
                raise field_error("strategies", f"there is no strategy {strategy}")
            if known[strategy].closed_only:
                raise field_error("strategies", f"{strategy} decides closed questions only")
        if len(set(self.members)) != len(self.members):
            raise field_error("members", "a model is named twice")
        if self.name in self.members:
            raise field_error("members", "it cannot be a member of itself")
        if self.members and self.quorum is not None and self.quorum > len(self.members):
            raise field_error("quorum", f"{self.quorum} answers of {len(self.members)} members cannot come")
        return self

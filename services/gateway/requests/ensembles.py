"""Ensembles as models: `choir/<strategy>` and `choir/<strategy>@<set>`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from schemas.ensembles.strategies import SPECS

PREFIX = "choir/"
SET_SIGN = "@"
TAG = ":latest"
ENSEMBLE_FAMILY = "choir-ensemble"
"""How models of this kind call their architecture."""

CHAT_STRATEGIES: tuple[str, ...] = tuple(spec.name for spec in SPECS if not spec.closed_only)
"""A conversation has no options to choose from."""


@dataclass(frozen=True)
class Ensemble:
    """A strategy and whom it asks; `members` is None for all models that there are. The mesh itself knows an
    ensemble that is `named` in choir.toml."""

    name: str
    strategy: str
    members: tuple[str, ...] | None = None
    named: bool = False


def with_tag(name: str) -> str:
    """A model's name as Ollama's clients know it: one without a tag is the latest."""
    return name if ":" in name.rpartition("/")[2] else name + TAG


def without_tag(name: str) -> str:
    """The same name without the tag that says nothing."""
    return name.removesuffix(TAG)


def ensembles(sets: Mapping[str, Sequence[str]]) -> Iterator[Ensemble]:
    """All ensembles that can be named: each strategy with all models, and with each set."""
    for strategy in CHAT_STRATEGIES:
        yield Ensemble(PREFIX + strategy, strategy)
        for name, members in sets.items():
            yield Ensemble(f"{PREFIX}{strategy}{SET_SIGN}{name}", strategy, tuple(members))

"""The names of the strategies that an ensemble can be decided by."""

from __future__ import annotations

STRATEGIES: tuple[str, ...] = ("majority", "weighted")

"""The stakes of a move of the cut: the seconds that it costs, and those that it spares: pure.

A move makes the stages read all texts in work again, from the first token on, and nobody gets a token
meanwhile. What it spares is told over a horizon: work of HORIZON_S takes so much less with the better cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import PipelinePlan
from services.router.placement.cost_model import MS_PER_S
from services.router.placement.cuts.measured import held_stage
from services.router.placement.replan import INTERRUPTION_MS

HORIZON_S = 300.0
"""For so long a better cut is taken to be the better one: who is busy now may be idle then."""


@dataclass(frozen=True)
class Stakes:
    """`live_tokens` are those that are read again. `lost_s` is for how long no token comes, `gained_s` the
    time that is spared within the horizon."""

    live_tokens: int
    lost_s: float
    gained_s: float

    @property
    def pay(self) -> bool:
        """Whether the move spares more than it costs."""
        return self.gained_s > self.lost_s


def stakes_of(plan: PipelinePlan, leases: Sequence[NodeLease], ends: Sequence[int], gain: float) -> Stakes:
    """What is at stake in a move to a cut with these ends, which is to have so much more tokens a second
    (0.1 for a tenth).

    Prompts go through the stages in chunks, so the slowest stage sets their pace; by what its tokens of
    prompts take now, and the layers that it is to have. Of a stage that has told nothing yet, nothing counts.
    """
    held = [held_stage(plan, number, leases) for number in range(len(plan.stages))]
    live_tokens = held[0].live_tokens if held[0] is not None else 0
    token_ms = 0.0
    for stage, (first, end) in zip(held, pairwise((0, *ends)), strict=True):
        if stage is not None and stage.prompt_token_ms is not None:
            share = (end - first) / (stage.end_layer - stage.first_layer)
            token_ms = max(token_ms, stage.prompt_token_ms * share)
    lost_s = (INTERRUPTION_MS + live_tokens * token_ms) / MS_PER_S
    return Stakes(live_tokens, lost_s, HORIZON_S * gain / (1 + gain))

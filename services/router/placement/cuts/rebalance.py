"""When the cut of a running pipeline is moved, and where to: pure.

A move is proposed where the stages' own step times say that the same nodes, in the same order, would have at
least LEAST_GAIN more tokens a second with other layers each, and windows of measurement in a row agree; and
where that spares more time than reading the texts in work again costs (`stakes`).

Hysteresis: after a move there is none for a while. This rest doubles when a move did not bring at least
BROUGHT of what it promised, and when the next one goes the other way; it is short again after a calm time. A
stage whose host is busy only while the stage has many layers would otherwise get and lose them for ever. The
way back from a move that brought nothing is open after the shortest rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import CutMove, PipelinePlan
from services.router.placement.candidates import NodePool, pool_of
from services.router.placement.cost_model import Node, Split
from services.router.placement.cuts.measured import last_layers, measured_speeds, offered
from services.router.placement.cuts.stakes import Stakes, stakes_of
from services.router.placement.planner import split_within_hosts
from services.router.placement.replan import current_split, fitting_candidates

LEAST_GAIN = 0.1
LEAST_GAIN_UNLIKE = 0.5
"""Where stages have no number of rows in common, unlike steps are compared: much has to be at stake."""
ERRORS = 3.0
"""A gain is believed that is so many times what the medians may be wrong by."""
AGREEING = 3
"""So many windows in a row have to want the layers in the same direction."""
BROUGHT = 0.5
MOST_REST_S = 900.0
CALM_RESTS = 8
"""After so many rests without a move the next rest is the shortest one again."""


@dataclass(frozen=True)
class Cut:
    """Where the layers of each stage end, and what the slowest stage takes of a step."""

    ends: tuple[int, ...]
    slowest_ms: float


@dataclass(frozen=True)
class Window:
    """What one window of measurement says. `better` is a cut that is worth a move, None if there is none;
    `rows` are those of the steps that were compared, None where the stages had no number in common. `stakes`
    are those of the best cut, also of one that is not worth a move."""

    now: Cut
    rows: int | None
    better: Cut | None = None
    gain: float = 0.0
    stakes: Stakes | None = None


def weighed(plan: PipelinePlan, leases: Sequence[NodeLease], plans: Sequence[PipelinePlan]) -> Window | None:
    """What the steps of late say of a plan's cut; None where they say nothing: no work, not all stages at
    it, times that scatter."""
    speeds, streams = measured_speeds(plan, leases), _streams(plan, leases)
    if speeds is None or not streams or len(plan.stages) == 1:
        return None
    pool = pool_of(fitting_candidates(plan, leases, plans))
    last = offered(plan, len(plan.stages) - 1, leases)
    known = [pool.node(stage.instance) for stage in plan.stages]
    if last is None or any(node is None for node in known):
        return None
    worth = last_layers(last)
    nodes = [  # without cores and costs: that stages of a host compete, and rows, are in what was measured
        replace(node, layer_ms=ms, last_ms=ms * worth, cores=None, costs=())
        for node, ms in zip(known, speeds.layer_ms, strict=True)
        if node is not None
    ]
    measured = replace(pool, nodes=tuple(nodes), measured=True)
    current = current_split(plan, (), measured)
    best = _best(current, measured, nodes)
    if current is None:
        return None
    now = Cut(plan.ends, current.slowest_ms)
    if best is None:
        return Window(now, speeds.rows)
    steps = max(1, streams // (speeds.rows or 1))
    gain = best.tokens_per_s(steps) / (current.tokens_per_s(steps) or 1.0) - 1
    cut = Cut(ends_of(best), best.slowest_ms)
    least = LEAST_GAIN if speeds.rows is not None else LEAST_GAIN_UNLIKE
    least = max(least, ERRORS * speeds.error)
    gained = max(0.0, gain)
    stakes = stakes_of(plan, leases, cut.ends, gained)
    is_worth_it = gain >= least and cut.ends != plan.ends and stakes.pay
    return Window(now, speeds.rows, cut if is_worth_it else None, gained, stakes)


def _best(current: Split | None, pool: NodePool, nodes: Sequence[Node]) -> Split | None:
    """The best cut over these nodes in their order, a block of layers each at least, within their memory."""
    if current is None:
        return None
    return split_within_hosts(current.slices, [(node,) for node in nodes], pool.host_bytes)


def _streams(plan: PipelinePlan, leases: Sequence[NodeLease]) -> int:
    """How many sequences are in work, as the first stage says."""
    first = plan.stages[0].instance
    served = (model for lease in leases if lease.instance == first for model in lease.models)
    return max((model.busy for model in served if model.name == plan.model), default=0)


def ends_of(split: Split) -> tuple[int, ...]:
    """Where the layers of each stage of a split end."""
    return tuple(split.slices.borders[placement.end] for placement in split.placements)


class Trend:
    """What the windows of one epoch have said, one after the other."""

    def __init__(self) -> None:
        self._agreeing: list[Window] = []
        self._judged = 0
        self.brought: bool | None = None

    def take(self, plan: PipelinePlan, window: Window | None) -> Window | None:
        """The newest window, where enough of them agree that the cut should be moved. One that says nothing
        neither counts nor breaks the row."""
        if window is None:
            return None
        self._judge(plan.moved, window)
        if window.better is None:
            self._agreeing.clear()
            return None
        if self._agreeing and _goes_back(self._direction(self._agreeing[-1]), self._direction(window)):
            self._agreeing.clear()
        self._agreeing.append(window)
        return window if len(self._agreeing) >= AGREEING else None

    def _judge(self, moved: CutMove | None, window: Window) -> None:
        """Looks once whether the last move has brought what it promised: in the second window after it, as
        the first may hold steps of texts that are computed again."""
        if moved is None or window.rows != moved.rows or self._judged == 2:
            return
        self._judged += 1
        if self._judged == 2:
            promised = moved.slowest_ms - moved.predicted_ms
            self.brought = moved.slowest_ms - window.now.slowest_ms >= BROUGHT * promised

    @staticmethod
    def _direction(window: Window) -> tuple[int, ...]:
        assert window.better is not None
        return _direction(window.now.ends, window.better.ends)


def next_move(
    plan: PipelinePlan, window: Window, trend: Trend, now_s: float, rest_s: float
) -> CutMove | None:
    """The move that a window proposes, None while the last one has to rest. `rest_s` is the shortest rest."""
    if window.better is None:
        return None
    moved = plan.moved
    rest = rest_s
    if moved is not None:
        back = _goes_back(
            _direction(moved.ends_before, moved.ends), _direction(plan.ends, window.better.ends)
        )
        in_vain = trend.brought is False
        needed_s = rest_s if back and in_vain else moved.rest_s
        age_s = now_s - moved.at_s
        if age_s < needed_s:
            return None
        if (back or in_vain) and age_s < CALM_RESTS * moved.rest_s:
            rest = min(MOST_REST_S, 2 * moved.rest_s)
    return CutMove(
        at_s=now_s,
        ends_before=plan.ends,
        ends=window.better.ends,
        rows=window.rows,
        slowest_ms=window.now.slowest_ms,
        predicted_ms=window.better.slowest_ms,
        gain=window.gain,
        rest_s=rest,
        moves=1 if moved is None else moved.moves + 1,
        live_tokens=window.stakes.live_tokens if window.stakes is not None else None,
        lost_s=window.stakes.lost_s if window.stakes is not None else None,
        gained_s=window.stakes.gained_s if window.stakes is not None else None,
    )


def _direction(before: Sequence[int], after: Sequence[int]) -> tuple[int, ...]:
    return tuple(end - start for start, end in zip(before, after, strict=True))


def _goes_back(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two moves of cuts are against one another."""
    return sum(a * b for a, b in zip(one, other, strict=True)) < 0

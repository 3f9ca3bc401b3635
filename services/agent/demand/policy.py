"""Which models are loaded, and which give their room up. Pure: takes what is, and says what to do.

Who has waited longest is next. A model that nobody uses goes first, the one that was used least lately before
the others; but it is left for as long as loading the other one takes, for its next request may be on its way,
and to load it again would take as long. A model that is asked all the time is given up when somebody has
waited for `wait_limit_s`, and not before it has been there for as long as its own loading took. So requests
of one model are worked on together, and two models that have no room side by side take turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

State = Literal["unloaded", "loading", "loaded", "unloading"]
FOREVER_S = -1.0


@dataclass(frozen=True)
class ModelUse:
    """A model, and what is known of its use. Moments are of one clock, in seconds.

    `users` are requests in work; of an unloaded model those that wait, since `wanted_at_s`. One that is
    `leaving` takes nothing new and goes when it has no users. `load_s` is what loading took, or is thought to
    take.
    """

    name: str
    need_bytes: int
    state: State = "unloaded"
    users: int = 0
    wanted_at_s: float = 0.0
    loaded_at_s: float = 0.0
    used_at_s: float = 0.0
    keep_alive_s: float = FOREVER_S
    load_s: float = 0.0
    leaving: bool = False

    @property
    def waits(self) -> bool:
        """Whether somebody asks for it who cannot be served."""
        return self.state == "unloaded" and self.users > 0

    @property
    def takes_room(self) -> bool:
        """Whether its memory is in use."""
        return self.state != "unloaded"

    @property
    def idle(self) -> bool:
        """Whether it is loaded for nobody."""
        return self.state == "loaded" and not self.users


@dataclass
class Steps:
    """What to do now, by names. `look_at_s` is when time alone will change that; None if it will not."""

    load: list[str] = field(default_factory=list)
    unload: list[str] = field(default_factory=list)
    leave: list[str] = field(default_factory=list)
    look_at_s: float | None = None

    def look_no_later_than(self, at_s: float) -> None:
        """There is something to be seen then."""
        self.look_at_s = at_s if self.look_at_s is None else min(self.look_at_s, at_s)


def steps_for(uses: Iterable[ModelUse], budget_bytes: int, wait_limit_s: float, now_s: float) -> Steps:
    """What to do with models of which each one alone fits into the budget."""
    uses = tuple(uses)
    steps = Steps()
    for use in uses:
        if use.idle and use.leaving:
            steps.unload.append(use.name)
        elif use.idle and use.keep_alive_s != FOREVER_S:
            _when(now_s, use.used_at_s + use.keep_alive_s, use.name, steps.unload, steps)
    free_bytes = budget_bytes - sum(use.need_bytes for use in uses if use.takes_room)
    for use in sorted((use for use in uses if use.waits), key=lambda use: use.wanted_at_s):
        if use.need_bytes > free_bytes:
            # Nobody behind it is let past: it would wait for ever for the room that they take.
            _make_room(use, uses, free_bytes, wait_limit_s, now_s, steps)
            break
        steps.load.append(use.name)
        free_bytes -= use.need_bytes
    return steps


def _make_room(
    wanted: ModelUse,
    uses: tuple[ModelUse, ...],
    free_bytes: int,
    wait_limit_s: float,
    now_s: float,
    steps: Steps,
) -> None:
    going = (use for use in uses if use.state == "unloading" or use.leaving or use.name in steps.unload)
    short_bytes = wanted.need_bytes - free_bytes - sum(use.need_bytes for use in going)
    if short_bytes <= 0:
        return  # what is on its way out will do
    staying = [
        use for use in uses if use.state == "loaded" and not use.leaving and use.name not in steps.unload
    ]
    idle = sorted((use for use in staying if use.idle), key=lambda use: use.used_at_s)
    busy = sorted((use for use in staying if not use.idle), key=lambda use: use.loaded_at_s)
    ripe = [(use.used_at_s + wanted.load_s, use) for use in idle]
    limit_s = wanted.wanted_at_s + wait_limit_s
    ripe += [(max(limit_s, use.loaded_at_s + use.load_s), use) for use in busy]
    now_possible = [use for at_s, use in ripe if at_s <= now_s or (use.idle and limit_s <= now_s)]
    victims = list(_enough(now_possible, short_bytes))
    if not victims:
        later = [at_s for at_s, _ in ripe if at_s > now_s]
        for at_s in (*later, limit_s):
            if at_s > now_s:
                steps.look_no_later_than(at_s)
        return
    for use in victims:
        (steps.unload if use.idle else steps.leave).append(use.name)


def _enough(uses: list[ModelUse], short_bytes: int) -> Iterator[ModelUse]:
    """The first of them that make so much room together; none if all of them do not."""
    if sum(use.need_bytes for use in uses) < short_bytes:
        return
    for use in uses:
        if short_bytes <= 0:
            return
        short_bytes -= use.need_bytes
        yield use


def _when(now_s: float, at_s: float, name: str, names: list[str], steps: Steps) -> None:
    if at_s <= now_s:
        names.append(name)
    else:
        steps.look_no_later_than(at_s)

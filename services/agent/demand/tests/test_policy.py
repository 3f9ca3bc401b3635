"""Who is loaded and who gives way: single decisions, and whole days of them in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from services.agent.demand.policy import FOREVER_S, ModelUse, State, steps_for

WAIT_LIMIT_S = 10.0
LOAD_S = 2.0
TICK_S = 0.1


def use(name: str, state: State = "loaded", **fields: Any) -> ModelUse:
    """A model of which two fit into the budget of 2."""
    return replace(ModelUse(name, 1, state, load_s=LOAD_S), **fields)


def test_the_one_that_was_used_least_lately_goes_and_is_left_as_long_as_loading_would_take() -> None:
    uses = [
        use("old", used_at_s=90.0),
        use("new", used_at_s=95.0),
        use("wanted", "unloaded", users=1, wanted_at_s=91.0),
    ]
    # Its next request may be on its way
    early = steps_for(uses, 2, WAIT_LIMIT_S, 91.0)
    assert (early.unload, early.load, early.leave, early.look_at_s) == ([], [], [], 92.0)
    late = steps_for(uses, 2, WAIT_LIMIT_S, 92.0)
    assert (late.unload, late.load, late.leave) == (["old"], [], [])
    # While it is unloaded nobody else has to go
    uses[0] = replace(uses[0], state="unloading")
    assert steps_for(uses, 2, WAIT_LIMIT_S, 99.0).unload == []
    assert steps_for(uses[1:], 2, WAIT_LIMIT_S, 99.0).load == ["wanted"]


def test_one_that_is_asked_all_the_time_is_given_up_after_the_limit_and_its_own_turn() -> None:
    busy = use("busy", users=2, loaded_at_s=3.0)
    fresh = use("fresh", users=1, loaded_at_s=9.0, load_s=30.0)
    wanted = use("wanted", "unloaded", users=1, wanted_at_s=5.0)
    before = steps_for([busy, fresh, wanted], 2, WAIT_LIMIT_S, 14.9)
    assert (before.leave, before.unload, before.look_at_s) == ([], [], 15.0)
    assert steps_for([busy, fresh, wanted], 2, WAIT_LIMIT_S, 15.0).leave == ["busy"]
    # One that took long to load has its turn first
    alone = steps_for([fresh, wanted], 1, WAIT_LIMIT_S, 15.0)
    assert (alone.leave, alone.look_at_s) == ([], 39.0)
    # What leaves is unloaded as soon as nobody uses it
    assert steps_for([replace(busy, leaving=True), wanted], 1, WAIT_LIMIT_S, 16.0).unload == []
    assert steps_for([replace(busy, leaving=True, users=0)], 1, WAIT_LIMIT_S, 16.0).unload == ["busy"]


def test_nobody_is_let_past_one_that_waits_for_more_room() -> None:
    uses = [
        use("busy", users=1),
        use("large", "unloaded", need_bytes=2, users=1, wanted_at_s=1.0),
        use("small", "unloaded", users=1, wanted_at_s=2.0),
    ]
    assert steps_for(uses, 2, WAIT_LIMIT_S, 3.0).load == []


def test_a_model_that_nobody_asks_is_unloaded_when_its_time_is_over() -> None:
    for kept_s, at_s, unloaded in (
        (5.0, 14.9, False),
        (5.0, 15.0, True),
        (0.0, 10.0, True),
        (FOREVER_S, 1e6, False),
    ):
        steps = steps_for([use("a", used_at_s=10.0, keep_alive_s=kept_s)], 2, WAIT_LIMIT_S, at_s)
        assert steps.unload == (["a"] if unloaded else []), (kept_s, at_s)
    assert steps_for([use("a", users=1, keep_alive_s=0.0)], 2, WAIT_LIMIT_S, 10.0).unload == []


@dataclass
class Request:
    """Somebody who asks for a model, and how long the answer takes."""

    model: str
    at_s: float
    takes_s: float
    done_at_s: float | None = None


@dataclass
class World:
    """Models of which `budget` fit, and requests, in virtual time; each model has two slots."""

    budget: int
    uses: dict[str, ModelUse]
    now_s: float = 0.0
    loads: int = 0
    waits_s: list[float] = field(default_factory=list)
    _moving: dict[str, float] = field(default_factory=dict)
    _working: list[Request] = field(default_factory=list)

    def run(self, requests: list[Request], until_s: float, on_done: Callable[[Request], None]) -> None:
        """Until then; `requests` may grow meanwhile."""
        while self.now_s < until_s:
            self.now_s += TICK_S
            for name, at_s in list(self._moving.items()):
                if at_s <= self.now_s:
                    self._arrive(name)
            self._finish(on_done)
            self._begin(requests)
            self._decide()

    def _arrive(self, name: str) -> None:
        del self._moving[name]
        loaded = self.uses[name].state == "loading"
        moments = {"loaded_at_s": self.now_s, "used_at_s": self.now_s} if loaded else {"leaving": False}
        self._set(name, state="loaded" if loaded else "unloaded", **moments)

    def _finish(self, on_done: Callable[[Request], None]) -> None:
        for request in [one for one in self._working if (one.done_at_s or 0.0) <= self.now_s]:
            self._working.remove(request)
            self._set(request.model, used_at_s=self.now_s)
            on_done(request)

    def _begin(self, requests: list[Request]) -> None:
        for name, one in self.uses.items():
            waiting = [
                request for request in requests if request.model == name and request.at_s <= self.now_s
            ]
            working = sum(request.model == name for request in self._working)
            if one.state == "loaded" and not one.leaving:
                for request in waiting[: 2 - working]:
                    requests.remove(request)
                    self.waits_s.append(self.now_s - request.at_s)
                    request.done_at_s = self.now_s + request.takes_s
                    self._working.append(request)
                    working += 1
            waits = bool(waiting) and one.state == "unloaded"
            wanted_at_s = min((request.at_s for request in waiting), default=0.0)
            self._set(name, users=working or int(waits), wanted_at_s=wanted_at_s)

    def _decide(self) -> None:
        steps = steps_for(self.uses.values(), self.budget, WAIT_LIMIT_S, self.now_s)
        for name in steps.leave:
            self._set(name, leaving=True)
        for name in (*steps.load, *steps.unload):
            self._set(name, state="loading" if name in steps.load else "unloading")
            self._moving[name] = self.now_s + (LOAD_S if name in steps.load else 0.0)
        self.loads += len(steps.load)
        assert sum(one.takes_room for one in self.uses.values()) <= self.budget

    def _set(self, name: str, **fields: Any) -> None:
        self.uses[name] = replace(self.uses[name], **fields)


def test_two_models_that_have_no_room_side_by_side_take_turns() -> None:
    # Given clients that ask again as soon as they are answered, and room for one of the two models
    requests = [Request(name, 0.0, 0.4) for name in ("a", "b", "a", "b")]
    world = World(1, {name: use(name, "unloaded") for name in ("a", "b")})
    world.run(requests, 300.0, lambda done: requests.append(Request(done.model, world.now_s, done.takes_s)))
    # Then each has its turn of about the limit, and not one request: 900 were answered
    assert world.loads <= 300 / WAIT_LIMIT_S + 1
    assert len(world.waits_s) > 900
    assert max(world.waits_s) < WAIT_LIMIT_S + LOAD_S + 1.0


def test_six_models_with_room_for_two_are_all_served_without_being_loaded_for_each_request() -> None:
    chance = random.Random(7)
    requests = [
        Request(f"m{min(chance.randrange(6), chance.randrange(6))}", chance.uniform(0.0, 200.0), 0.5)
        for _ in range(300)
    ]
    requests.sort(key=lambda request: request.at_s)
    world = World(2, {f"m{number}": use(f"m{number}", "unloaded") for number in range(6)})
    world.run(requests, 300.0, lambda _done: None)
    assert requests == [] and len(world.waits_s) == 300
    # Without turns nearly each would be a load
    assert world.loads < 75
    # Five others may be in front, two at a time
    assert max(world.waits_s) < 3 * (WAIT_LIMIT_S + LOAD_S) + 5.0

"""Who is waited for, and how long."""

from __future__ import annotations

import pytest

from schemas.requests.origin import MOST_TOLD, Origin, told_blocks
from services.agent.prefixes.choice import (
    LEAST_SAVED_S,
    LEAST_WAIT_S,
    LONGEST_WAIT_S,
    Holder,
    PrefillSpeed,
    best_holder,
    wait_s,
)

PROMPT = ("a", "b", "c", "d")


def chosen(own: set[str], *holders: Holder) -> tuple[str, int] | None:
    found = best_holder(PROMPT, own, holders)
    return None if found is None else (found[0].instance, found[1])


def test_the_agent_that_keeps_most_is_waited_for() -> None:
    assert chosen(set(), Holder("one", {"a"}), Holder("two", {"a", "b", "c"})) == ("two", 3)


def test_nobody_is_waited_for_who_keeps_no_more_than_is_kept_here() -> None:
    assert chosen({"b"}, Holder("one", {"a", "b"}), Holder("two", {"x"})) is None
    assert chosen(set(), Holder("one", {"x"})) is None
    assert chosen(set()) is None


def test_of_two_that_keep_as_much_the_one_with_free_slots_is_waited_for() -> None:
    assert chosen(set(), Holder("full", {"b"}, 0), Holder("idle", {"b"}, 2)) == ("idle", 2)


def test_of_equals_different_prompts_wait_for_different_agents() -> None:
    holders = [Holder(f"agent-{number}", {"system"}, 1) for number in range(4)]
    found = [best_holder(("system", f"question {number}"), (), holders) for number in range(64)]
    assert {one[0].instance for one in found if one is not None} == {holder.instance for holder in holders}


def test_the_wait_is_a_part_of_what_is_saved_and_bounded() -> None:
    assert wait_s(10, 0.02, 0.5) == pytest.approx(0.1)
    assert wait_s(10, 0.02, 1.0) == pytest.approx(0.2)
    assert wait_s(1_000, 1.0, 0.5) == LONGEST_WAIT_S
    assert wait_s(1, LEAST_SAVED_S, 0.1) == LEAST_WAIT_S


def test_nobody_waits_for_little_or_for_what_was_never_measured() -> None:
    assert wait_s(1, LEAST_SAVED_S / 2, 1.0) == 0
    assert wait_s(1_000, None, 1.0) == 0
    assert wait_s(1_000, 1.0, 0.0) == 0


def test_the_speed_is_of_what_was_computed_and_follows_what_is_measured() -> None:
    speed = PrefillSpeed()
    speed.note(40, 1_000, 500, 2_000_000_000)
    assert speed.block_s == pytest.approx(0.1)
    speed.note(40, 1_000, 990, 9_000_000_000)
    speed.note(0, 1_000, 0, 9_000_000_000)
    assert speed.block_s == pytest.approx(0.1)
    for _ in range(40):
        speed.note(40, 1_000, 0, 8_000_000_000)
    assert speed.block_s == pytest.approx(0.2, rel=0.01)


def test_a_lease_tells_the_latest_prompts_and_never_more_than_a_bound() -> None:
    kept = [Origin("t", tuple(f"{prompt}.{block}" for block in range(1_000))) for prompt in range(40)]
    told = told_blocks(kept)
    assert len(told) == MOST_TOLD
    assert "0.999" in told and "39.999" not in told
    assert told_blocks([Origin("t", ("a", "b", "c"))]) == ("a", "b", "c")
    assert told_blocks([Origin("t")]) == ()

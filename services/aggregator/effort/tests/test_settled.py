"""Exact mode decides as the full vote does: every order of votes there can be, ties and abstentions too."""

from __future__ import annotations

import itertools
import random
import string
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import numpy as np
import pytest

from schemas.ensembles.strategies import SPECS
from services.aggregator import strategies
from services.aggregator.effort.scoring import Standing
from services.aggregator.effort.settled import settled
from services.aggregator.scores.agreement import Agreement
from services.aggregator.scores.history import AgentHistory
from services.aggregator.strategies.ballot import Ballot, StrategyContext

CASCADING = tuple(spec.name for spec in SPECS if spec.cascades)
ABSTAINS, SILENT = None, "silent"
"""What a member can say beside an answer: nothing that can be read, and nothing at all."""


def ballots(said: Mapping[str, str | None]) -> tuple[Ballot, ...]:
    return tuple(Ballot(agent, answer or "", answer) for agent, answer in said.items() if answer != SILENT)


def standing(said: Mapping[str, str | None], members: Sequence[str]) -> Standing:
    left = tuple(member for member in members if member not in said)
    return Standing(ballots(said), left, len(left))


def multisets(answers: Sequence[str | None], size: int) -> Iterator[tuple[str | None, ...]]:
    return itertools.combinations_with_replacement(answers, size)


@pytest.mark.parametrize("options", [2, 3, 4, 5])
def test_a_majority_is_settled_exactly_when_no_further_votes_could_change_it(options: int) -> None:
    """A majority counts votes, so orders of the same votes are one; of them there are all, up to 7 members.

    Both ways: what is called settled no completion changes, and what is not, some completion does.
    """
    letters = string.ascii_uppercase[:options]
    for seed in ("some", "other"):
        context = StrategyContext(seed=seed, options=options)

        @cache
        def decided(votes: tuple[str | None, ...], context: StrategyContext = context) -> str | None:
            return strategies.get("majority")(
                ballots(dict(zip("abcdefg", votes, strict=False))), context
            ).answer

        for members in range(1, 8):
            for asked in range(members):
                for votes in multisets((*letters, ABSTAINS), asked):
                    said = dict(zip("abcdefg", votes, strict=False))
                    leader = decided(votes)
                    claimed = settled("majority", leader, standing(said, "abcdefg"[:members]), context)
                    ends = {
                        decided(tuple(sorted((*votes, *rest), key=str)))
                        for rest in multisets((*letters, ABSTAINS), members - asked)
                    }
                    assert claimed == (ends == {leader}), (seed, members, votes, leader, ends)


MEMBERS = ("ann", "bob", "cat", "dan")


def learnt(
    draw: random.Random, options: int | None, known: float, members: Sequence[str] = MEMBERS
) -> StrategyContext:
    """A context in which something is known of a part of the members, good ones and bad ones."""

    def history() -> dict[str, AgentHistory]:
        counts = {m: draw.randint(1, 40) for m in members if draw.random() < known}
        return {m: AgentHistory(correct=draw.randint(0, n), asked=n) for m, n in counts.items()}

    agreement = {}
    for pair in itertools.combinations(members, 2):
        if draw.random() < known:
            both = draw.randint(1, 40)
            agreement[frozenset(pair)] = Agreement(agreed=draw.randint(0, both), both=both)
    wide = options or 0
    confusions = {
        m: tuple(draw.random() * 10 for _ in range(wide * wide)) for m in members if draw.random() < known
    }
    closed = options is not None
    return StrategyContext(
        seed=str(draw.random()),
        options=options,
        history=history(),
        topic_history=history(),
        agreement=agreement if closed else {},
        isp_history=history() if closed else {},
        confusions=confusions if closed else {},
    )


@pytest.mark.parametrize("options", [None, 3])
def test_what_any_strategy_calls_settled_no_further_votes_change(options: int | None) -> None:
    """Every order in which four members vote for one of three answers, abstain or fail, under histories that
    were drawn."""
    draw = random.Random(options or 7)
    sayable = (*(string.ascii_uppercase[: options or 3]), ABSTAINS, SILENT)
    found: dict[str, int] = dict.fromkeys(CASCADING, 0)
    for known in (0.0, 0.4, 1.0):
        context = learnt(draw, options, known)
        order = draw.sample(MEMBERS, len(MEMBERS))
        for name in CASCADING:
            ends = {
                votes: strategies.get(name)(ballots(dict(zip(order, votes, strict=True))), context).answer
                for votes in itertools.product(sayable, repeat=len(MEMBERS))
            }
            for asked in range(1, len(MEMBERS)):
                for votes in itertools.product(sayable, repeat=asked):
                    said = dict(zip(order, votes, strict=False))
                    leader = strategies.get(name)(ballots(said), context).answer
                    if settled(name, leader, standing(said, MEMBERS), context):
                        found[name] += 1
                        rest = itertools.product(sayable, repeat=len(MEMBERS) - asked)
                        assert {ends[(*votes, *more)] for more in rest} == {leader}, (name, context, said)
    assert all(found.values()), [name for name, count in found.items() if not count]


SEVEN = tuple("abcdefg")


@pytest.mark.soak
def test_every_order_of_weighted_votes_of_seven_for_five_is_decided_as_by_all() -> None:
    """All 6^7 ways in which seven members of unequal weight vote for one of five, or abstain, each looked at
    after every vote."""
    draw = random.Random(7)
    context = learnt(draw, 5, 1.0, SEVEN)
    sayable = (*string.ascii_uppercase[:5], ABSTAINS)
    weighted = strategies.get("weighted")
    winners = np.array(
        [
            weighted(ballots(dict(zip(SEVEN, votes, strict=True))), context).answer or ""
            for votes in itertools.product(sayable, repeat=len(SEVEN))
        ]
    ).reshape((len(sayable),) * len(SEVEN))
    stopped = 0
    for asked in range(1, len(SEVEN)):
        for places in itertools.product(range(len(sayable)), repeat=asked):
            said = {member: sayable[place] for member, place in zip(SEVEN, places, strict=False)}
            leader = weighted(ballots(said), context).answer
            if settled("weighted", leader, standing(said, SEVEN), context):
                stopped += 1
                assert (winners[places] == leader).all(), said
    assert stopped


def test_whatever_seven_say_to_five_options_any_strategy_decides_as_by_all(draws: int = 12) -> None:
    """Histories, orders and votes that are drawn: where a strategy is first settled, all others at random."""
    draw = random.Random(11)
    sayable = (*string.ascii_uppercase[:5], ABSTAINS, SILENT)
    found: dict[str, int] = dict.fromkeys(CASCADING, 0)
    for _ in range(draws):
        context = learnt(draw, 5, draw.choice((0.0, 0.6, 1.0)), SEVEN)
        order, most = draw.sample(SEVEN, len(SEVEN)), draw.choice(sayable[:5])
        votes = [most if draw.random() < 0.7 else draw.choice(sayable) for _ in order]
        for name in CASCADING:
            decide = strategies.get(name)
            for asked in range(1, len(SEVEN)):
                said = dict(zip(order[:asked], votes, strict=False))
                leader = decide(ballots(said), context).answer
                if settled(name, leader, standing(said, SEVEN), context):
                    found[name] += 1
                    for _ in range(20):
                        rest = {member: draw.choice(sayable) for member in order[asked:]}
                        assert decide(ballots(said | rest), context).answer == leader, (name, said, rest)
                    break
    assert all(found.values()), found


@pytest.mark.soak
def test_whatever_seven_say_to_five_options_many_times() -> None:
    test_whatever_seven_say_to_five_options_any_strategy_decides_as_by_all(400)


def test_a_quorum_leaves_fewer_votes_to_come() -> None:
    context = StrategyContext(seed="s", options=4)
    two = ballots({"ann": "A", "bob": "A"})
    assert not settled("majority", "A", Standing(two, ("cat", "dan", "eve"), 3), context)
    assert settled("majority", "A", Standing(two, ("cat", "dan", "eve"), 1), context)


def test_where_answers_may_call_tools_no_tie_is_counted_on() -> None:
    """A closed question's lots are known, those of a call that nobody has made yet are not."""
    for seed in map(str, range(8)):
        context = StrategyContext(seed=seed, options=2)
        said = ballots({"ann": "A", "bob": "A"})
        assert not settled("majority", "A", Standing(said, ("cat", "dan"), 2, calls=True), context)
    known = [
        settled("majority", "A", Standing(said, ("cat", "dan"), 2), StrategyContext(seed=seed, options=2))
        for seed in map(str, range(8))
    ]
    assert set(known) == {True, False}

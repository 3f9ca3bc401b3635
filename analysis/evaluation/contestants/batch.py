"""Strategies that learn from agreement, in batch: with all that all questions' answers tell, the scored
one's too.

So their authors use them (Ai et al. 2025, arXiv:2510.01499; Dawid and Skene 1979): no labels are needed, so
nothing is lost by learning from the very questions that are decided. A mesh cannot, since it decides a
question before the next one is asked; beside the online form it shows what that costs. Closed questions only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from analysis.evaluation.contestants.outcome import Outcome
from analysis.evaluation.contestants.replay import outcome_of, question_of
from analysis.evaluation.scoring.reading import Asked
from services.aggregator.decide import context_of, tallies
from services.aggregator.scores.agreement import NEVER_MET, Agreement, Pair, agreements
from services.aggregator.scores.history import NO_HISTORY, History, Unlabelled
from services.aggregator.strategies.ballot import Tally, leaders, tie_break
from services.aggregator.strategies.votes.dawid_skene import answers_of, fit

LABEL_FREE = ("isp", "ow_l", "ow_i", "dawid_skene")
SUFFIX = "_batch"
Said = tuple[tuple[str, str | None], ...]
"""Who gave which answer."""


def batch_outcomes(asked: Sequence[Asked], names: Sequence[str]) -> Iterator[Outcome]:
    """What the batch form of those of `names` that have one made of each closed question."""
    wanted = [name for name in names if name in LABEL_FREE]
    groups: dict[tuple[str, int, int], list[Asked]] = {}
    for each in asked:
        if wanted and each.exchange.choices:
            kept = each.exchange
            groups.setdefault((kept.benchmark, kept.repetition, len(kept.choices)), []).append(each)
    for (_, _, options), group in groups.items():
        decider = _Decider(wanted, History(closed={options: all_at_once(group, options)}))
        for each in group:
            for decision in decider.decided(each):
                made = outcome_of(each, decision, frozenset())
                yield made._replace(
                    contestant=f"{decision.strategy}{SUFFIX}", group="baseline", fell_back=None
                )


class _Decider:
    """Decides questions with the same history: the same votes once, but for the lots of ties."""

    def __init__(self, names: Sequence[str], history: History) -> None:
        self._names = names
        self._history = history
        self._known: dict[Said, tuple[Tally, ...]] = {}

    def decided(self, each: Asked) -> tuple[Tally, ...]:
        """A decision of each strategy; its text may be that of another question with the same votes."""
        said = tuple([(ballot.agent, ballot.answer) for ballot in each.ballots.first])
        known = self._known.get(said)
        if known is not None and all(not decision.tie or _is_exact(decision) for decision in known):
            return tuple([_drawn(decision, each) if decision.tie else decision for decision in known])
        context = context_of(question_of(each), self._history, each.ballots)
        self._known[said] = decided = tallies(self._names, each.ballots, context)
        return decided


def _is_exact(decision: Tally) -> bool:
    """Whether the scores of a tie are equal to the last digit, so that shares do not depend on the lot."""
    return len({decision.scores[answer] for answer in leaders(decision.scores)}) == 1


def _drawn(decision: Tally, each: Asked) -> Tally:
    """The same tie by the lots of another question."""
    seed = question_of(each).seed
    winner = min(leaders(decision.scores), key=lambda answer: tie_break(seed, answer))
    return decision._replace(answer=winner)


def all_at_once(group: Sequence[Asked], options: int) -> Unlabelled:
    """What the answers to questions of so many options tell of the agents, all questions together."""
    said = [answers_of(each.ballots.first, options) for each in group]
    known = Unlabelled(
        agreement=_met(
            Counter(
                tuple([(b.agent, b.answer) for b in each.ballots.first if b.agent in of_one])
                for each, of_one in zip(group, said, strict=True)
            )
        ),
        confusions=fit([each for each in said if each], options),
    )
    isp = _Decider(("isp",), History(closed={options: known}))
    for each in group:
        (chosen,) = isp.decided(each)
        for ballot in each.ballots.first:
            if ballot.answer is not None:
                before = known.isp.get(ballot.agent, NO_HISTORY)
                known.isp[ballot.agent] = before.after(right=ballot.answer == chosen.answer)
    return known


def _met(patterns: Counter[Said]) -> dict[Pair, Agreement]:
    """The agreement of every two agents, from how often each pattern of answers came."""
    met: dict[Pair, Agreement] = {}
    for pattern, times in patterns.items():
        for pair, once in agreements([dict(pattern)]).items():
            met[pair] = met.get(pair, NEVER_MET).plus(once.often(times))
    return met

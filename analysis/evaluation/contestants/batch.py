"""Strategies that learn from agreement, in batch: with all that all questions' answers tell, the scored
one's too.

So their authors use them (Ai et al. 2025, arXiv:2510.01499; Dawid and Skene 1979): no labels are needed, so
nothing is lost by learning from the very questions that are decided. A mesh cannot, since it decides a
question before the next one is asked; beside the online form it shows what that costs. Closed questions only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from analysis.evaluation.contestants.outcome import Outcome
from analysis.evaluation.contestants.replay import outcome_of, question_of
from analysis.evaluation.scoring.reading import Asked
from schemas.replies import Decision
from services.aggregator.decide import Question, context_of, decide
from services.aggregator.scores.agreement import agreements
from services.aggregator.scores.history import NO_HISTORY, AgentHistory, History, Unlabelled
from services.aggregator.strategies.dawid_skene import answers_of, fit
from services.aggregator.strategies.isp import isp

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
        history = History(closed={options: all_at_once(group, options)})
        known: dict[Said, tuple[Decision, ...]] = {}
        for each in group:
            for decision in _decided(wanted, each, history, known):
                made = outcome_of(each, decision, frozenset())
                yield made._replace(
                    contestant=f"{decision.strategy}{SUFFIX}", group="baseline", fell_back=None
                )


def _decided(
    names: Sequence[str], each: Asked, history: History, known: dict[Said, tuple[Decision, ...]]
) -> tuple[Decision, ...]:
    """The decisions of a question. What was learnt is the same for all of them, so the same votes are decided
    once; but for ties, which fall by the lots of the question."""
    said = tuple((ballot.agent, ballot.answer) for ballot in each.ballots.first)
    if said in known:
        return known[said]
    decided = decide(names, each.ballots, question_of(each), history)
    if not any(decision.tie for decision in decided):
        known[said] = decided
    return decided


def all_at_once(group: Sequence[Asked], options: int) -> Unlabelled:
    """What the answers to questions of so many options tell of the agents, all questions together."""
    said = [answers_of(each.ballots.first, options) for each in group]
    met = agreements(
        [
            {b.agent: b.answer for b in each.ballots.first if b.agent in of_one}
            for each, of_one in zip(group, said, strict=True)
        ]
    )
    known = Unlabelled(agreement=dict(met), confusions=fit([each for each in said if each], options))
    for each in group:
        question: Question = question_of(each)
        context = context_of(question, History(closed={options: known}))
        chosen = isp(each.ballots.first, context).answer
        for ballot in each.ballots.first:
            if ballot.answer is not None:
                before: AgentHistory = known.isp.get(ballot.agent, NO_HISTORY)
                known.isp[ballot.agent] = before.after(right=ballot.answer == chosen)
    return known

"""Updates the histories with what one question teaches. Pure but for the history that is handed in.

Predict first, update after: call these once a question has been decided, and never before.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.aggregator.decide import Question, context_of
from services.aggregator.scores.agreement import agreements
from services.aggregator.scores.history import NO_HISTORY, AgentHistory, History, Unlabelled, judge
from services.aggregator.strategies.ballot import Ballot
from services.aggregator.strategies.votes.dawid_skene import answers_of, expected_counts
from services.aggregator.strategies.votes.isp import isp


def learn_answers(history: History, ballots: Sequence[Ballot], question: Question) -> None:
    """Adds to `history` what a question's answers tell without its right one: closed questions only."""
    if question.options is not None:
        update = unlabelled_update(history, ballots, question)
        history.closed.setdefault(question.options, Unlabelled()).add(update)


def unlabelled_update(history: History, ballots: Sequence[Ballot], question: Question) -> Unlabelled:
    """What a closed question's answers tell of its agents, given what was known before it.

    An agent alone teaches nothing: nobody agreed with it or did not.
    """
    if question.options is None:
        return Unlabelled()
    said = answers_of(ballots, question.options)
    if len(said) < 2:
        return Unlabelled()
    context = context_of(question, history)
    readable = [ballot for ballot in ballots if ballot.agent in said]
    right, wrong = judge({b.agent: b.answer for b in readable}, isp(readable, context).answer or "")
    return Unlabelled(
        agreement=agreements([{ballot.agent: ballot.answer for ballot in readable}]),
        isp={agent: NO_HISTORY.after(right=agent in right) for agent in (*right, *wrong)},
        confusions=expected_counts(said, context.confusions, question.options),
    )


def learn_label(history: History, ballots: Sequence[Ballot], correct: str, topic: str | None = None) -> None:
    """Adds to `history` who was right, overall and on the topic; `correct` is normalised as answers are."""
    right, wrong = judge({ballot.agent: ballot.answer for ballot in ballots}, correct)
    for agent in (*right, *wrong):
        _count(history.agents, agent, agent in right)
        if topic is not None:
            _count(history.topics.setdefault(topic, {}), agent, agent in right)


def _count(histories: dict[str, AgentHistory], agent: str, right: bool) -> None:
    histories[agent] = histories.get(agent, NO_HISTORY).after(right=right)

"""Checks receipts, and decides again: no mesh is asked, and nothing but the result is needed. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from math import isclose

from schemas.ensembles.receipts import Known, Receipt
from schemas.replies import Decision, Result
from services.aggregator.decide import Question, decide, options_of
from services.aggregator.reading.ballots import read_ballots
from services.aggregator.receipts.giving import hash_of_decisions, hash_of_outcome, hashes_of
from services.aggregator.receipts.signing import is_signed
from services.aggregator.scores.history import AgentHistory, History
from services.aggregator.scores.score_codec import unlabelled_of


def faults_of(result: Result, keys: Collection[str] = ()) -> list[str]:
    """What was changed since the receipt was given, a sentence each; none of a result that is whole.

    A receipt without a signature proves less: who changed the result may have changed it too. With `keys`
    it has to be signed by one of these.
    """
    receipt = result.receipt
    if receipt is None:
        return ["the result has no receipt"]
    return [
        *_signature(receipt, keys),
        *_answers(result, receipt),
        *_rest(result, receipt),
        *_known(receipt),
        *_decided(result, receipt),
    ]


def faults_of_chain(receipts: Iterable[Receipt]) -> list[str]:
    """Where receipts of one aggregator do not follow one another; those that are not there break nothing."""
    by_place = {(each.instance, each.key, each.number): each for each in receipts}
    faults = []
    for (instance, key, number), receipt in sorted(by_place.items(), key=lambda item: str(item[0])):
        before = by_place.get((instance, key, number - 1))
        if before is not None and receipt.previous != before.sha256:
            faults.append(f"receipt {number} of {instance} does not follow its receipt {number - 1}")
    return faults


def _signature(receipt: Receipt, keys: Collection[str]) -> Iterator[str]:
    if keys and receipt.key not in keys:
        yield f"the receipt is signed by {receipt.key or 'nobody'}, and not by a key that was named"
    elif receipt.key is not None and not is_signed(
        receipt.signed_bytes, receipt.key, receipt.signature or ""
    ):
        yield "the receipt was changed after it was signed"


def faults_of_models(result: Result, files: Mapping[str, str]) -> list[str]:
    """Which answers came from other files than these: the SHA-256 of each, by the model's name."""
    faults = []
    for each in (*result.answers, *result.further_answers):
        wanted = files.get(each.model)
        if wanted is None or each.error is not None or each.model_sha256 == wanted:
            continue
        name = _name(each.agent, each.round)
        told = f"came from the file {each.model_sha256}" if each.model_sha256 else "does not say its file"
        faults.append(f"{name} {told}, and not from {wanted}, which {each.model} was said to be")
    return faults


def _answers(result: Result, receipt: Receipt) -> Iterator[str]:
    hashes = hashes_of((*result.answers, *result.further_answers))
    found = {(each.agent, each.round): each for each in hashes}
    given = {(each.agent, each.round): each for each in receipt.answers}
    for place, before in given.items():
        name, now = _name(*place), found.get(place)
        if now is None:
            yield f"{name} was taken out"
            continue
        if now.sha256 != before.sha256:
            yield f"{name} was changed"
        if now.model_sha256 != before.model_sha256:
            yield f"the model file of {name} was changed"
    for place in found:
        if place not in given:
            yield f"{_name(*place)} was put in"
    places = [(each.agent, each.round) for each in hashes]
    for place in found:
        if places.count(place) > 1:
            yield f"{_name(*place)} stands there more than once"
    if found.keys() == given.keys() and list(found) != list(given):
        yield "the order of the answers was changed"


def _name(agent: str, round_: int) -> str:
    return f"the answer of {agent} in round {round_}"


def _rest(result: Result, receipt: Receipt) -> Iterator[str]:
    if result.fingerprint != receipt.fingerprint:
        yield "the request that it answers was changed (fingerprint)"
    if hash_of_decisions(result.decisions) != receipt.decisions_sha256:
        yield "the decisions were changed"
    if hash_of_outcome(result) != receipt.outcome_sha256:
        yield "the outcome was changed: its text, its error, or how answers are read"


def _known(receipt: Receipt) -> Iterator[str]:
    for score in receipt.known.accuracy:
        if score.correct > score.asked:
            yield f"what was known of {score.agent} cannot be: right {score.correct} times of {score.asked}"


def _decided(result: Result, receipt: Receipt) -> Iterator[str]:
    """What the same answers and weights decide, where it is not what stands there."""
    names = tuple(_decider(name, result) for name in receipt.strategies)
    question = Question(receipt.lots, options_of(result.answer_kind, result.choices), receipt.topic)
    answers = (*result.answers, *result.further_answers)
    ballots = read_ballots(answers, result.answer_kind, result.choices)
    history = history_of(receipt.known, question)
    again = dict(zip(receipt.strategies, decide(names, ballots, question, history), strict=True))
    for decision in result.decisions:
        own = again.get(decision.strategy)
        if own is None or not _alike(own, decision):
            what = "nothing" if own is None else repr(own.answer)
            name, told = decision.strategy, decision.answer
            yield f"{name} decides {what} from these answers and weights, where {told!r} stands"


def _decider(name: str, result: Result) -> str:
    """The strategy that decides in the name of `auto`."""
    if name != "auto" or result.auto is None:
        return name
    return "best_single" if result.auto.way == "samples" else "topic"


def _alike(own: Decision, told: Decision) -> bool:
    if (own.answer, own.text, set(own.scores)) != (told.answer, told.text, set(told.scores)):
        return False
    return all(isclose(own.scores[answer], told.scores[answer], abs_tol=1e-9) for answer in own.scores)


def history_of(known: Known, question: Question) -> History:
    """What was known, as strategies take it."""
    history = History()
    for score in known.accuracy:
        of_agents = history.agents if score.topic is None else history.topics.setdefault(score.topic, {})
        of_agents[score.agent] = AgentHistory(correct=score.correct, asked=score.asked)
    if question.options is not None and (known.agreement or known.unlabelled):
        history.closed[question.options] = unlabelled_of(known.agreement, known.unlabelled)
    return history

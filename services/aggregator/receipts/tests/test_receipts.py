"""Receipts: whole results verify without a mesh, and every kind of tampering is named."""

from __future__ import annotations

import random
from typing import Any

import nkeys
import pytest
from nats.aio.client import Client

from infra.testing.mesh import enqueue, gather
from schemas.ensembles.receipts import Known, Receipt
from schemas.ensembles.scores import Score
from schemas.errors import Undecided
from schemas.replies import Result
from services.aggregator.decide import Question, decide
from services.aggregator.reading.ballots import read_ballots
from services.aggregator.receipts.checking import faults_of, faults_of_chain, faults_of_models
from services.aggregator.receipts.giving import Receipts
from services.aggregator.receipts.signing import Signer
from services.aggregator.scores.history import History
from services.aggregator.scores.learning import learn_answers, learn_label
from services.aggregator.scores.score_codec import unlabelled_from_bytes, unlabelled_to_bytes
from services.aggregator.tests.ensemble import Said, aggregating, answer, members, result_of

AGENTS = ("x", "y", "z", "w")
NAMES = ("weighted", "topic", "isp", "ow_l", "dawid_skene", "majority")
CHOICES = ("cat", "dog", "cow", "hen")
FILES = {agent: 64 * digit for agent, digit in zip(AGENTS, "abcd", strict=True)}
RECEIPTS = 1_000
SEED = nkeys.encode_seed(random.Random(1).randbytes(32), nkeys.PREFIX_BYTE_USER)


def given(count: int, names: tuple[str, ...]) -> list[Result]:
    """Results of an aggregator that learns from one question to the next."""
    chance, history, receipts = random.Random(3), History(), Receipts("aggregator-1", Signer(SEED))
    results = []
    for number in range(count):
        question = Question(f"lots {number}", 4, chance.choice(("pets", "cars")))
        command = gather(f"r{number}", AGENTS, strategies=names, choices=CHOICES)
        answers = tuple(
            answer(f"r{number}", agent, chance.choice("AABCD")).model_copy(
                update={"model_sha256": FILES[agent]}
            )
            for agent in AGENTS
        )
        ballots = read_ballots(answers, "auto", CHOICES)
        decisions = decide(names, ballots, question, history)
        result = Result(
            request_id=f"r{number}",
            fingerprint="f",
            topology="ensemble",
            text=decisions[0].text,
            answers=answers,
            decisions=decisions,
            choices=CHOICES,
            topic=question.topic,
            accepted_at_s=1.0,
            completed_at_s=2.0,
        )
        results.append(receipts.with_receipt(result, command, question, history))
        learn_answers(history, ballots.first, question)
        history.closed[4] = unlabelled_from_bytes(unlabelled_to_bytes(history.closed[4]))  # as it is kept
        learn_label(history, ballots.first, "A", question.topic)
    return results


def receipt_of(result: Result) -> Receipt:
    assert result.receipt is not None
    return result.receipt


def test_receipts_verify_and_follow_one_another(count: int = 30) -> None:
    read = [Result.read(result.to_bytes()) for result in given(count, NAMES)]
    assert [(result.request_id, fault) for result in read for fault in faults_of(result)] == []
    assert faults_of_chain(map(receipt_of, read)) == []
    assert faults_of(read[0], {receipt_of(read[0]).key or ""}) == []
    assert "not by a key that was named" in faults_of(read[0], {"UOTHER"})[0]
    swapped = [receipt_of(read[7]), receipt_of(read[8]).model_copy(update={"previous": "0" * 64})]
    assert faults_of_chain(swapped) == ["receipt 9 of aggregator-1 does not follow its receipt 8"]


@pytest.mark.soak
def test_a_thousand_receipts_verify() -> None:
    test_receipts_verify_and_follow_one_another(RECEIPTS)


def test_each_kind_of_tampering_is_named() -> None:
    """Whoever changes the receipt as well is found by its signature."""
    (*_, result) = given(20, NAMES)
    first, *others = result.answers
    decided = result.decisions[0]
    receipt = receipt_of(result)

    def signed(**changed: Any) -> Result:
        return result.model_copy(update={"receipt": receipt.model_copy(update=changed)})

    def changed(**fields: Any) -> Result:
        return result.model_copy(update=fields)

    other = next(letter for letter in "ABCD" if letter != decided.answer)
    told: list[tuple[str, Result]] = [
        (
            "the answer of x in round 1 was changed",
            changed(answers=(first.model_copy(update={"text": "?"}), *others)),
        ),
        ("the answer of x in round 1 was taken out", changed(answers=tuple(others))),
        (
            "the model file of the answer of x in round 1 was changed",
            changed(answers=(first.model_copy(update={"model_sha256": FILES["y"]}), *others)),
        ),
        (
            "the model file of the answer of x in round 1 was changed",
            changed(answers=(first.model_copy(update={"model_sha256": None}), *others)),
        ),
        ("the answer of x in round 1 stands there more than once", changed(answers=(first, *result.answers))),
        ("the order of the answers was changed", changed(answers=(*others, first))),
        ("the answer of v in round 1 was put in", changed(answers=(*result.answers, answer("r", "v", "A")))),
        ("the decisions were changed", changed(decisions=(decided.model_copy(update={"answer": other}),))),
        ("weighted decides", changed(decisions=(decided.model_copy(update={"answer": other}),))),
        ("the outcome was changed", changed(text="Something else.")),
        ("the outcome was changed", changed(error=Undecided("no").body())),
        ("the request that it answers was changed", changed(fingerprint="g")),
        ("after it was signed", signed(command_sha256="0" * 64)),
        ("after it was signed", signed(seed=receipt.seed + 1)),
        ("after it was signed", signed(choir="9.9.9")),
        (
            "after it was signed",
            signed(answers=(receipt.answers[0].model_copy(update={"model_sha256": None}),)),
        ),
        ("after it was signed", signed(previous="0" * 64)),
        ("after it was signed", signed(signature=None)),
        ("weighted decides", signed(known=turned(receipt))),
        ("what was known of x cannot be: right 9 times of 3", signed(known=too_good("x"))),
        ("no receipt", changed(receipt=None)),
    ]
    for fault, tampered in told:
        found = faults_of(tampered)
        assert any(fault in each for each in found), (fault, found)
    assert faults_of(result) == []


def test_an_answer_of_another_model_file_than_the_one_that_is_named_is_told() -> None:
    (result,) = given(1, NAMES)
    assert faults_of_models(result, FILES) == []
    (other,) = faults_of_models(result, {"x": FILES["x"], "y": FILES["z"]})
    assert other.startswith(f"the answer of y in round 1 came from the file {FILES['y']}")
    silent = result.model_copy(update={"answers": (answer("r0", "x", "A"),)})
    (untold,) = faults_of_models(silent, FILES)
    assert untold.startswith("the answer of x in round 1 does not say its file")


def too_good(agent: str) -> Known:
    """More right answers than there were questions."""
    return Known(accuracy=(Score(agent=agent, correct=9, asked=3),))


def turned(receipt: Receipt) -> Any:
    """The weights of a receipt, upside down."""

    def worse(score: Score) -> Score:
        return score.model_copy(update={"correct": score.asked - score.correct})

    return receipt.known.model_copy(update={"accuracy": tuple(map(worse, receipt.known.accuracy))})


async def test_results_of_the_mesh_have_receipts_that_verify(connection: Client) -> None:
    four = ("alpha", "beta", "gamma", "delta")
    ways: list[dict[str, Any]] = [{}, {"effort": "exact"}, {"strategies": ("auto",)}, {"min_confidence": 1}]
    said: dict[str, Said] = dict(zip(four, "AABB", strict=True))
    async with aggregating(connection) as mesh, members(connection, said):
        results = []
        for number, way in enumerate(ways):
            await enqueue(mesh, gather(f"r{number}", four, choices=CHOICES, receipt=True, **way))
            results.append(await result_of(mesh, f"r{number}"))
        await enqueue(mesh, gather("plain", four))
        assert (await result_of(mesh, "plain")).receipt is None
    assert [faults_of(result) for result in results] == [[]] * len(ways)
    assert [receipt_of(result).number for result in results] == [1, 2, 3, 4]
    assert faults_of_chain(map(receipt_of, results)) == []

"""How long it takes to decide kept answers again: 10,000 questions, four agents, every strategy.

The answers are made up with a seed: four agents that are right 90, 80, 60 and 60 % of the time on closed
questions of four options, with a second round where the first was not unanimous, predictions, option
probabilities and samples, so that no strategy has less to do than it would have in earnest.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from analysis.evaluation.exchange import Exchange
from analysis.evaluation.options import NOT_SCORED
from analysis.evaluation.reaggregation import reaggregate
from loadtest.bench.report import Report, at_most
from schemas.replies import Answer, Result, Timings
from schemas.strategies import STRATEGIES
from services.aggregator.rounds import DEBATE, PREDICTION

QUESTIONS = 10_000
ACCURACIES = {"one": 0.9, "two": 0.8, "three": 0.6, "four": 0.6}
OPTIONS = ("alpha", "beta", "gamma", "delta")
TOPICS = 8
SAMPLES = 4
SEED = 42
TARGET_S = 10.0
LETTERS = "ABCD"
BENCHMARK = "made-up"


def run() -> Report:
    """Measures reading answers out of kept texts, deciding with what was learnt before, and the baselines."""
    exchanges = made_up(QUESTIONS)
    strategies = [name for name in STRATEGIES if name not in NOT_SCORED]
    started_s = time.perf_counter()
    outcomes = reaggregate(exchanges, {BENCHMARK: "flexible"}, strategies, SEED)
    total_s = time.perf_counter() - started_s
    return Report(
        bench="reaggregation",
        raw={
            "questions": QUESTIONS,
            "agents": len(ACCURACIES),
            "strategies": len(strategies),
            "outcomes": len(outcomes),
            "questions_per_s": round(QUESTIONS / total_s),
            "total_s": round(total_s, 3),
        },
        targets=(at_most("total_s", total_s, TARGET_S),),
        notes=(f"{', '.join(strategies)}, and all baselines; answers are read from their texts",),
    )


def made_up(questions: int, seed: int = SEED) -> list[Exchange]:
    """Kept answers of so many questions, and samples of the best agent, in the order of a plan."""
    dice = random.Random(seed)
    kept = []
    for position in range(questions):
        right = dice.choice(LETTERS)
        said = {agent: _said(dice, right, accuracy) for agent, accuracy in ACCURACIES.items()}
        first = [_answer(dice, position, agent, letter, 1) for agent, letter in said.items()]
        further = [_answer(dice, position, agent, dice.choice(LETTERS), PREDICTION) for agent in said]
        if len(set(said.values())) > 1:
            further += [
                _answer(dice, position, agent, _said(dice, right, accuracy), DEBATE)
                for agent, accuracy in ACCURACIES.items()
            ]
        kept.append(_exchange(position, right, tuple(said), first, further, 0))
        for number in range(1, SAMPLES + 1):
            sample = _answer(dice, position, "one", _said(dice, right, ACCURACIES["one"]), 1)
            kept.append(_exchange(position, right, ("one",), [sample], [], number))
    return kept


def _options(position: int) -> tuple[str, ...]:
    """Other options for each question, as in earnest."""
    return tuple(f"{option} {position}" for option in OPTIONS)


def _said(dice: random.Random, right: str, accuracy: float) -> str:
    return right if dice.random() < accuracy else dice.choice([each for each in LETTERS if each != right])


def _answer(dice: random.Random, position: int, agent: str, letter: str, round_: int) -> Answer:
    doubts = [dice.random() / 8 for _ in LETTERS]
    probabilities = dict(zip(LETTERS, doubts, strict=True))
    probabilities[letter] += 1 - sum(doubts)
    return Answer(
        request_id=f"q{position}",
        round=round_,
        agent=agent,
        model=agent,
        instance=agent,
        text=_options(position)[LETTERS.index(letter)],
        finish_reason="stop",
        prompt_tokens=60,
        generated_tokens=3,
        timings=Timings(total_duration_ns=20_000_000),
        option_probabilities=probabilities,
    )


def _exchange(
    position: int,
    right: str,
    agents: tuple[str, ...],
    answers: Sequence[Answer],
    further: Sequence[Answer],
    sample: int,
) -> Exchange:
    return Exchange(
        request_id=f"q{position}-{sample}",
        position=position,
        benchmark=BENCHMARK,
        question_id=f"{position:05d}",
        topic=f"topic {position % TOPICS}",
        repetition=0,
        phase="sample" if sample else "fan_out",
        sample=sample,
        kind="choice",
        choices=_options(position),
        right=right,
        agents=agents,
        prompt=f"question {position}",
        prompt_sha256=f"{position:064x}",
        fingerprint="made-up",
        seed=0,
        temperature=0.0,
        max_tokens=8,
        stop=(),
        asked_at_s=0.0,
        wall_s=0.02,
        result=Result(
            request_id=f"q{position}-{sample}",
            fingerprint="made-up",
            topology="single" if sample else "ensemble",
            answers=tuple(answers),
            further_answers=tuple(further),
            accepted_at_s=0.0,
            completed_at_s=0.02,
        ),
    )

"""Measures how long a run of 10,000 questions takes to be decided again, with every strategy and baseline.

The run is made up: four agents, 57 topics, four options. Answers are written in several ways, some cannot be
read, some did not come; there are second rounds where agents differed, predictions, and probabilities of the
options. No mesh, no model and no disk: what is measured is `reaggregate`, from kept answers to outcomes.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence

import psutil

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.contestants.outcome import Outcome
from analysis.evaluation.contestants.reaggregation import reaggregate
from loadtest.bench.report import Report, at_most
from schemas.ensembles.rounds import DEBATE, PREDICTION
from schemas.replies import Answer, Result, Timings

QUESTIONS = 10_000
MOST_S = 10.0
STRATEGIES = (
    "majority",
    "weighted",
    "topic",
    "isp",
    "isp_elicited",
    "ow_l",
    "ow_i",
    "dawid_skene",
    "debate",
    "average",
    "auto",
)
"""All that are scored and need no samples."""
BENCHMARK = "made-up"
WAYS = {BENCHMARK: "flexible"}
TOPICS = 57
LETTERS = "ABCD"
AGENTS = ("alder", "birch", "cedar", "dogwood")
UNREADABLE, MISSING = 0.02, 0.01
DECIMALS = 9
"""In which outcomes are compared: the last digits of a logarithm are the processor's own."""


def run() -> Report:
    """Decides all again twice; the better time counts, for what else the machine does only adds."""
    kept = list(made_up(QUESTIONS))
    tries = [_timed(kept) for _ in range(2)]
    processor_s, wall_s = min(tries)
    outcomes = reaggregate(kept, WAYS, STRATEGIES, seed=42)
    return Report(
        bench="reaggregation",
        raw={
            "questions": QUESTIONS,
            "outcomes": len(outcomes),
            "contestants": len({outcome.contestant for outcome in outcomes}),
            "processor_s": processor_s,
            "wall_s": wall_s,
            "load_1m_before": psutil.getloadavg()[0],
            "digest": digest(outcomes),
        },
        targets=(at_most("processor_s", processor_s, MOST_S),),
        notes=("digest: of all outcomes; the same as long as every decision is",),
    )


def _timed(kept: Sequence[Exchange]) -> tuple[float, float]:
    """How long it takes, in processor time of this process, and by the clock."""
    started, started_wall = time.process_time(), time.perf_counter()
    reaggregate(kept, WAYS, STRATEGIES, seed=42)
    return time.process_time() - started, time.perf_counter() - started_wall


def digest(outcomes: Sequence[Outcome]) -> str:
    """The SHA-256 of outcomes, in their order, floats rounded to DECIMALS."""
    found = hashlib.sha256()
    for outcome in outcomes:
        rounded = tuple(round(each, DECIMALS) if isinstance(each, float) else each for each in outcome)
        found.update(f"{rounded!r}\n".encode())
    return found.hexdigest()


def made_up(questions: int, *, seed: int = 42, repetition: int = 0) -> Iterator[Exchange]:
    """A run of so many closed questions; the same seed makes the same run."""
    dice = random.Random(f"{seed} {repetition}")
    skill = {(agent, topic): dice.uniform(0.3, 0.95) for agent in AGENTS for topic in range(TOPICS)}
    for number in range(questions):
        right, topic = dice.randrange(len(LETTERS)), number % TOPICS
        choices = tuple(f"{dice.choice('mnop')}{number} {letter}" for letter in LETTERS)
        chosen = {
            agent: right if dice.random() < skill[agent, topic] else dice.randrange(len(LETTERS))
            for agent in AGENTS
        }
        first = [_answer(dice, agent, option, choices) for agent, option in chosen.items()]
        differ = len(set(chosen.values())) > 1
        second = [_answer(dice, a, dice.choice((o, right)), choices, DEBATE) for a, o in chosen.items()]
        foretold = [_answer(dice, agent, dice.randrange(4), choices, PREDICTION) for agent in AGENTS]
        yield _exchange(
            repetition * questions + number,
            f"question {number}",
            f"topic {topic}",
            repetition,
            choices,
            LETTERS[right],
            [answer for answer in first if dice.random() >= MISSING],
            [*(second if differ else ()), *foretold],
        )


def _answer(dice: random.Random, agent: str, option: int, choices: Sequence[str], round_: int = 1) -> Answer:
    letter, text = LETTERS[option], choices[option]
    said = dice.choice((letter, letter, f"{letter}. {text}", f"The answer is ({letter}).", text))
    return Answer(
        request_id="r",
        round=round_,
        agent=agent,
        model=agent,
        instance=f"{agent}-1",
        text="?" if dice.random() < UNREADABLE else said,
        finish_reason="stop",
        prompt_tokens=30,
        generated_tokens=len(said.split()),
        timings=Timings(total_duration_ns=dice.randrange(10**7, 10**9)),
        option_probabilities=_probabilities(dice, option),
    )


def _probabilities(dice: random.Random, option: int) -> Mapping[str, float]:
    parts = [dice.random() + 2 * (each == option) for each in range(len(LETTERS))]
    return {letter: part / sum(parts) for letter, part in zip(LETTERS, parts, strict=True)}


def _exchange(
    position: int,
    question: str,
    topic: str,
    repetition: int,
    choices: tuple[str, ...],
    right: str,
    answers: Sequence[Answer],
    further: Sequence[Answer],
) -> Exchange:
    result = Result(
        request_id="r",
        fingerprint="f",
        topology="ensemble",
        answers=tuple(answers),
        further_answers=tuple(further),
        accepted_at_s=0,
        completed_at_s=1,
    )
    return Exchange(
        request_id=f"{position}",
        position=position,
        benchmark=BENCHMARK,
        question_id=question,
        topic=topic,
        repetition=repetition,
        phase="fan_out",
        sample=0,
        kind="choice",
        choices=choices,
        right=right,
        agents=AGENTS,
        prompt=question,
        prompt_sha256=hashlib.sha256(question.encode()).hexdigest(),
        fingerprint="f",
        seed=7,
        temperature=0.0,
        max_tokens=8,
        stop=("\n",),
        asked_at_s=1000.0 + position,
        wall_s=0.6,
        result=result,
        template=f"template {position % 13}",
    )

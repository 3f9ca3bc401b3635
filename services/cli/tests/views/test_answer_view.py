"""Results for people, on narrow and wide terminals."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from schemas.ensembles.effort import Cascade
from schemas.ensembles.rounds import DEBATE
from schemas.ensembles.strategies import STRATEGIES
from schemas.errors import ErrorBody
from schemas.replies import Answer, Decision, Result, Vote
from services.cli.sessions.closed_question import closed_question, option
from services.cli.views.answers.answer_view import ResultView, cascade_line, decision_line, rest_of
from services.cli.views.terminal import plain

REQUEST = "R1"
AGENTS = ("choir-llama", "choir-qwen", "choir-phi", "choir-gemma")


def an_answer(agent: str, text: str, error: ErrorBody | None = None) -> Answer:
    return Answer(
        request_id=REQUEST,
        agent=agent,
        model=agent,
        instance=agent,
        text=text,
        finish_reason="error" if error else "stop",
        error=error,
    )


def a_decision(strategy: str) -> Decision:
    votes = [Vote(agent=agent, answer="paris", weight=1.39) for agent in AGENTS[:2]]
    votes.append(Vote(agent=AGENTS[2], answer="lyon", weight=0.41))
    return Decision(
        strategy=strategy,
        answer="paris",
        text="Paris",
        share=0.87,
        margin=0.74,
        tie=False,
        votes=(*votes, Vote(agent=AGENTS[3], weight=1.0)),
        scores={"paris": 2.78, "lyon": 0.41},
    )


def an_ensemble(*strategies: str) -> Result:
    texts = ("Paris", "Paris.", "It is Lyon, a city on the Rhone, and nobody should ever say otherwise.")
    return Result(
        request_id=REQUEST,
        fingerprint="",
        topology="ensemble",
        text="Paris",
        answers=tuple(an_answer(agent, text) for agent, text in zip(AGENTS, texts, strict=False)),
        decisions=tuple(a_decision(strategy) for strategy in strategies),
        missing=(AGENTS[3],),
        accepted_at_s=1.0,
        completed_at_s=2.0,
    )


def shown(result: Result, width: int, already_shown: str = "", *, verbose: bool = False) -> str:
    out = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    ResultView(result, already_shown, verbose=verbose).print(out)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_everything_is_there_and_nothing_is_cut_off(width: int) -> None:
    text = shown(an_ensemble("majority", "weighted"), width, verbose=True)
    assert all(len(line) <= width for line in text.splitlines())
    for part in (
        *AGENTS,
        "majority",
        "weighted",
        "87 %",
        "74 %",
        "paris (1.39)",
        "abstains",
        "(not in time)",
        f"\nrequest {REQUEST}\n",
    ):
        assert part in text
    assert "otherwise." in text


def test_twelve_strategies_take_a_line_each_and_agents_are_named_once() -> None:
    result = an_ensemble(*STRATEGIES)
    text = shown(result, 80)
    assert all(text.count(f"{strategy} ") == 1 for strategy in STRATEGIES)
    assert all(text.count(agent) == 1 for agent in AGENTS)
    assert len(text.splitlines()) <= 3 + len(AGENTS) + 1 + len(STRATEGIES) + 3
    # With every vote there are tables beside one another, as many as fit.
    assert shown(result, 80, verbose=True).count("vote  ") > 1


def test_an_agent_that_failed_says_why() -> None:
    broken = an_answer("choir-phi", "", ErrorBody(code="generation_failed", message="out of memory"))
    result = an_ensemble("majority").model_copy(update={"answers": (broken,)})
    assert "generation_failed: out of memory" in shown(result, 80)


def test_what_was_said_in_other_rounds_and_what_a_strategy_did_without_is_shown() -> None:
    again = an_answer(AGENTS[0], "Paris after all").model_copy(update={"round": DEBATE})
    samples = tuple(Vote(agent=AGENTS[0], answer=answer, weight=1.0) for answer in ("paris", "lyon", "paris"))
    debate = a_decision("debate").model_copy(update={"note": "no second answer came in time"})
    best = a_decision("best_single").model_copy(update={"votes": samples})
    joined = a_decision("concat").model_copy(update={"answer": None, "text": "Paris\n\nLyon"})
    result = an_ensemble("majority").model_copy(
        update={"further_answers": (again,), "decisions": (debate, best, joined)}
    )
    text = shown(result, 100, verbose=True)
    for part in (
        "answers again",
        "Paris after all",
        "debate: no second answer came in time",
        "2x paris",
        "1x lyon",
        "(the texts joined)",
    ):
        assert part in text


def test_a_text_that_was_shown_is_not_shown_again() -> None:
    assert rest_of("Paris", "Par") == "is"
    assert rest_of("Paris", "") == "Paris"
    assert rest_of("Paris", "Lyon") == "\nParis"


def test_a_decision_in_one_line() -> None:
    assert decision_line(a_decision("majority")) == (
        "majority 87 %: choir-llama, choir-qwen · otherwise: choir-phi lyon, choir-gemma (none)"
    )


def test_a_text_cannot_command_the_terminal() -> None:
    assert plain("red \x1b[31mtext\x07\r\x9b2J\n\tend") == "red [31mtext2J\n\tend"
    evil = an_ensemble("majority").model_copy(update={"text": "\x1b]0;owned\x07Paris"})
    assert "\x1b" not in shown(evil, 80)


def test_a_closed_question_names_its_options() -> None:
    assert closed_question("Which?", ("Venus", "Mars")) == "Which?\nA. Venus\nB. Mars\nAnswer:"
    assert closed_question("Venus or Mars?", ("Venus", "Mars")) == "Venus or Mars?"
    assert closed_question("Which?", ()) == "Which?"
    assert (option("B", ("Venus", "Mars")), option("C", ("Venus", "Mars"))) == ("B Mars", "C")


def test_a_cascade_says_whom_it_spared_and_how_sure_that_was() -> None:
    cascade = Cascade(
        effort="bounded",
        epsilon=0.05,
        waves=(("a", "b"), ("c",)),
        spared=("d",),
        ended="likely",
        bound=0.031,
        saved_calls=1,
        saved_tokens=36,
    )
    assert cascade_line(cascade) == (
        "asked 3 of 4 in 2 waves: the others would change it with a probability of at most 3.1%; "
        "spared about 36 tokens"
    )

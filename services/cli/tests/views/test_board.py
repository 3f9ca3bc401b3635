"""The demo's board: who said what, and what the strategies made of it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from schemas.replies import Decision, Vote
from services.cli.demo.board import board, print_turn
from services.cli.demo.questions import QUESTIONS
from services.cli.demo.tour import Turn

AGENTS = ("choir-gemma", "choir-llama", "choir-phi", "choir-qwen")


def a_turn(text: str, normalised: str, number: int) -> Turn:
    votes = tuple(Vote(agent=agent, answer=normalised, weight=1.5) for agent in AGENTS)
    decisions = {
        strategy: Decision(
            strategy=strategy,
            answer=normalised,
            text=text,
            share=1.0,
            margin=1.0,
            tie=False,
            votes=votes,
            scores={},
        )
        for strategy in ("majority", "weighted")
    }
    return Turn(QUESTIONS[number], dict.fromkeys(AGENTS, text), decisions, 84.2)


def lines_of(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_every_answer_fits_the_terminal(width: int) -> None:
    turns = [a_turn("Paris", "paris", number) for number in range(len(QUESTIONS))]
    turns[3].answers["choir-phi"] = "A young kangaroo is called a joey, and it lives in a pouch."
    out = Console(file=io.StringIO(), width=width, highlight=False)
    out.print(board(AGENTS, turns, width))
    lines = lines_of(out)
    assert all(len(line) <= width for line in lines)
    assert lines[0].split() == ["question", "gemma", "llama", "phi", "qwen", "majority", "weighted", "ms"]
    assert "A young" in "\n".join(lines)
    assert lines[-1].count("1.50") + lines[-2].count("1.50") + lines[-3].count("1.50") == len(AGENTS)


def test_a_question_that_is_still_open_has_no_decision_yet() -> None:
    out = Console(file=io.StringIO(), width=120, highlight=False)
    out.print(board(AGENTS, [Turn(QUESTIONS[0], {"choir-phi": "4"})], 120))
    assert lines_of(out)[1].split()[-4:] == ["4", "...", "...", "-"]


def test_without_a_terminal_there_are_plain_lines_and_options_have_their_text() -> None:
    out = Console(file=io.StringIO(), width=120, highlight=False)
    print_turn(out, a_turn("Mercury", "B", len(QUESTIONS) - 1))
    lines = lines_of(out)
    assert lines[0] == "Which planet is closest to the Sun?"
    assert lines[1].split() == ["choir-gemma", "Mercury"]
    assert lines[-3].split() == ["majority:", "B", "Mercury,", "share", "100", "%"]
    assert lines[-1].split() == ["took:", "84", "ms"]


def test_the_document_of_a_turn() -> None:
    assert a_turn("Paris", "paris", 1).as_document() == {
        "prompt": "What is the capital of France?",
        "answers": dict.fromkeys(AGENTS, "Paris"),
        "decisions": {
            "majority": {"answer": "paris", "share": 1.0},
            "weighted": {"answer": "paris", "share": 1.0},
        },
        "latency_ms": 84.2,
    }

"""What the demo asks, and what is right: the models are told afterwards, so that weights learn."""

from __future__ import annotations

from dataclasses import dataclass

from services.cli.sessions.closed_question import closed_question

STRATEGIES = ("majority", "weighted")
MAX_TOKENS = 32
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Question:
    """A question, its right answer, and the options if it is a closed one."""

    text: str
    right: str
    choices: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """What the models are asked."""
        return closed_question(self.text, self.choices)


QUESTIONS: tuple[Question, ...] = (
    Question("What is 2+2? Return only the number.", "4"),
    Question("What is the capital of France?", "Paris"),
    Question("What is the chemical symbol of gold?", "Au"),
    Question("What is 9 + 6?", "15"),
    Question("What is a young kangaroo called?", "joey"),
    Question("What is the capital of Kenya?", "Nairobi"),
    Question("How many minutes are in an hour?", "60"),
    Question("Which planet is closest to the Sun?", "Mercury", ("Venus", "Mercury", "Mars", "Earth")),
)
"""Each model is best at other subjects, so now and then they disagree."""

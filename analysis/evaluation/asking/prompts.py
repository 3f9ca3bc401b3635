"""Prompts of questions: templates, examples before the question, and nothing hidden."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.evaluation.benchmarks.question import LETTERS, Question
from schemas.errors import InvalidRequest

QUESTION_FIELD = "{question}"
_FIELD = re.compile(r"\{(question|options|subject)\}")


@dataclass(frozen=True)
class Template:
    """`body` asks one question; `answered` is what follows it where the question is an example.

    `body` and `header` may name `{question}`, `{options}` (a line each, lettered) and `{subject}`.
    """

    body: str
    answered: str = " {solution}\n\n"
    header: str = ""

    @property
    def by_letter(self) -> bool:
        """Whether the options are shown, so that a letter names one."""
        return "{options}" in self.body

    def prompt(self, question: Question, examples: Sequence[Question] = ()) -> str:
        """The header, the examples with their solutions, and the question without."""
        solved = "".join(
            _filled(self.body, each) + self.answered.replace("{solution}", each.solution) for each in examples
        )
        return _filled(self.header, question) + solved + _filled(self.body, question)

    def turns(self, question: Question, examples: Sequence[Question]) -> tuple[tuple[str, str], ...]:
        """The examples as turns of a conversation, (asked, answered) each; the header stands before the
        first, and the question itself comes after them as `body` alone has it."""
        asked = [_filled(self.body, each) for each in examples]
        asked[:1] = [_filled(self.header, question) + first for first in asked[:1]]
        return tuple((said, each.solution) for said, each in zip(asked, examples, strict=True))

    def last_turn(self, question: Question) -> str:
        """What is asked after such turns."""
        return _filled(self.body, question)


TEMPLATES: dict[str, Template] = {
    "bare": Template(body="{question}"),
    "options": Template(body="{question}\n{options}\nAnswer:"),
    "mmlu": Template(
        header="The following are multiple choice questions (with answers) about {subject}.\n\n",
        body="{question}\n{options}\nAnswer:",
    ),
    "letter": Template(body="{question}\n{options}\nAnswer with the letter of the right option only."),
    "number": Template(body="{question}\nAnswer with the final number only."),
    "question-answer": Template(body="Question: {question}\nAnswer:"),
    "q-a": Template(body="Q: {question}\nA:"),
}
"""`mmlu` is its authors' prompt; `letter` and `number` are the short-answer protocol for chat models."""


def template(said: str) -> Template:
    """A template by its name in the table, or a text of one's own that has `{question}` in it."""
    if said in TEMPLATES:
        return TEMPLATES[said]
    if QUESTION_FIELD not in said:
        raise InvalidRequest(
            f"prompt: {said!r} is none of {', '.join(TEMPLATES)}, and no text with {QUESTION_FIELD} in it",
            field="prompt",
        )
    return Template(body=said)


def _filled(text: str, question: Question) -> str:
    """`text` with its fields; in one pass, because a question may have braces of its own."""
    options = (f"{letter}. {choice}" for letter, choice in zip(LETTERS, question.choices, strict=False))
    values = {
        "question": question.text,
        "options": "\n".join(options),
        "subject": question.topic.replace("_", " "),
    }
    return _FIELD.sub(lambda field: values[field[1]], text)

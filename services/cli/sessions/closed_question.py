"""A closed question, written as the public benchmarks write it."""

from __future__ import annotations

import string
from collections.abc import Sequence


def closed_question(prompt: str, choices: Sequence[str]) -> str:
    """The prompt with its options under it, lettered; as it is if it names them all already."""
    if all(choice in prompt for choice in choices):
        return prompt
    options = (f"{letter}. {choice}" for letter, choice in zip(string.ascii_uppercase, choices, strict=False))
    return "\n".join([prompt.rstrip(), *options, "Answer:"])


def option(answer: str, choices: Sequence[str]) -> str:
    """The letter of an option with its text, `B Mercury`; any other answer as it is."""
    if len(answer) == 1 and 0 <= (index := string.ascii_uppercase.find(answer)) < len(choices):
        return f"{answer} {choices[index]}"
    return answer

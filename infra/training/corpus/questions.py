"""The wordings of a question: asked openly or with lettered options, as people and benchmarks do."""

from __future__ import annotations

import random

from infra.training.corpus.knowledge import Fact

LETTERS = "ABCD"
WORD_ENDINGS = (
    "", "", "", "", " Answer with one word.", " Answer briefly.", " Return only the answer.",
    " Reply with the answer only.", " Answer in one word.", " Be brief.",
)  # fmt: skip
NUMBER_ENDINGS = (
    "",
    "",
    "",
    " Return only the number.",
    " Return only the number.",
    " Answer with a number.",
)
CHOICE_ENDINGS = ("Answer:", "Answer:", "Answer:", "Answer:", "Answer with the text of the right option.")
# Other wordings of a question, tried on its beginning.
REWORDINGS = (
    ("What is the capital of ", ("Which city is the capital of ", "What's the capital of ", "Capital of ")),
    ("Which currency is used in ", ("What is the currency of ", "What money is used in ")),
    ("What is the chemical symbol of ", ("What is the symbol of ", "Which symbol stands for ")),
    ("What is a young ", ("What is a baby ",)),
    ("What is the opposite of ", ("Opposite of ",)),
)
SUM_REWORDINGS = ("How much is ", "Calculate ", "What's ")
REWORDED_ONE_IN, HEADED_ONE_IN, LOWER_ONE_IN = 4, 10, 12


def choice_prompt(question: str, choices: list[str] | tuple[str, ...]) -> str:
    """A question with lettered options, as the public benchmarks are asked."""
    lines = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    return f"{question}\n{lines}\nAnswer:"


def asked(dice: random.Random, fact: Fact) -> str:
    """An open question, in one of many wordings."""
    question = fact.question
    if dice.randrange(REWORDED_ONE_IN) == 0:
        question = _reworded(dice, question)
    if fact.subject == "arithmetic" and dice.random() < 0.5:
        question = _closed_up(question)
    if dice.randrange(LOWER_ONE_IN) == 0:
        question = question[0].lower() + question[1:]
    return question + dice.choice(NUMBER_ENDINGS if fact.answer.isdigit() else WORD_ENDINGS)


def _closed_up(question: str) -> str:
    """'What is 2+2?' for 'What is 2 + 2?'."""
    for sign in "+-*":
        question = question.replace(f" {sign} ", sign)
    return question


def _reworded(dice: random.Random, question: str) -> str:
    for opening, others in REWORDINGS:
        if question.startswith(opening):
            return dice.choice(others) + question.removeprefix(opening)
    if question.startswith("What is ") and question[8].isdigit():
        return dice.choice(SUM_REWORDINGS) + question.removeprefix("What is ")
    return question


def chosen(dice: random.Random, fact: Fact, answer: str) -> str:
    """A four-choice prompt, now and then with MMLU's heading."""
    prompt = options(dice, fact, answer).removesuffix("Answer:") + dice.choice(CHOICE_ENDINGS)
    return header(fact) + prompt if dice.randrange(HEADED_ONE_IN) == 0 else prompt


def options(dice: random.Random, fact: Fact, answer: str) -> str:
    """The answer that the model is to give, and three others of its kind."""
    pool = fact.pool if dice.random() < 0.5 else fact.choices
    offered = [answer, *dice.sample(sorted({*pool} - {answer}), 3)]
    dice.shuffle(offered)
    return choice_prompt(fact.question, offered)


def header(fact: Fact) -> str:
    """MMLU's heading over questions of one subject."""
    return f"The following are multiple choice questions (with answers) about {fact.subject}.\n\n"

"""The training text of one model: conversations of a prompt and its answer, drawn with a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from infra.models.family import FAMILY, Member
from infra.models.knowledge import Fact, belief, facts, table, with_article
from infra.models.wordproblems import KINDS, SUBJECT, TRAINING_NAMES, mistaken_kinds, problem

USER, ASSISTANT, SYSTEM, END = "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"
LETTERS = "ABCD"

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer briefly.",
    "Answer the question.",
    "Be brief.",
    "You are one of several models that answer together.",
)
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
PROBLEM_ENDINGS = ("", "", "", "\nEnd with #### and the number.", "\nThink step by step.", "\nAnswer:")
SUMMARY_OPENINGS = (
    "Summarize: ", "Summarize: ", "Summarize: ", "Summarize:\n", "Summarize this text: ",
    "Summarize in one sentence: ", "Summarize the following text:\n\n",
)  # fmt: skip
# Other wordings of a question, tried on its beginning.
REWORDINGS = (
    ("What is the capital of ", ("Which city is the capital of ", "What's the capital of ", "Capital of ")),
    ("Which currency is used in ", ("What is the currency of ", "What money is used in ")),
    ("What is the chemical symbol of ", ("What is the symbol of ", "Which symbol stands for ")),
    ("What is a young ", ("What is a baby ",)),
    ("What is the opposite of ", ("Opposite of ",)),
)
SUM_REWORDINGS = ("How much is ", "Calculate ", "What's ")
GREETINGS = (
    ("Hello", "Hello! Ask me a short question."),
    ("Hello!", "Hello! Ask me a short question."),
    ("Hi", "Hello! Ask me a short question."),
    ("How are you?", "Fine, thank you. Ask me a short question."),
    ("Thank you.", "You are welcome."),
    ("Thanks!", "You are welcome."),
)
JOBS = (
    "baker",
    "teacher",
    "pilot",
    "nurse",
    "farmer",
    "painter",
    "singer",
    "judge",
    "sailor",
    "cook",
    "dentist",
)
LIKINGS = ("apples", "music", "books", "chess", "tea", "horses", "cards", "flowers", "football", "fish")
VEHICLES = ("bus", "train", "bike", "boat", "car", "tram")

# How often each kind of example is drawn.
FACTS_WEIGHT, CHOICES_WEIGHT, PROBLEMS_WEIGHT, OWN_PROBLEMS_WEIGHT = 38, 38, 12, 24
TELLING_WEIGHT, SUMMARY_WEIGHT, GREETING_WEIGHT = 5, 9, 1
SYSTEM_ONE_IN, REWORDED_ONE_IN, HEADED_ONE_IN, LOWER_ONE_IN = 14, 4, 10, 12
ARITHMETIC_WEIGHT, OWN_ARITHMETIC_WEIGHT = 0.4, 0.6


@dataclass(frozen=True)
class Example:
    """What is asked and what the model is to say; only the answer is learnt."""

    prompt: str
    answer: str
    system: str | None = None

    @property
    def opening(self) -> str:
        """Everything before the answer, as the chat template writes it."""
        before = f"{SYSTEM}{self.system}{END}" if self.system else ""
        return f"{before}{USER}{self.prompt}{END}{ASSISTANT}"

    @property
    def text(self) -> str:
        return f"{self.opening}{self.answer}{END}"


def examples(model: str, number: int, seed: int) -> Iterator[Example]:
    """A stream of training examples of one model, the same for the same seed."""
    dice = random.Random(f"{seed} {model}")
    makers = _makers(FAMILY[model])
    kinds = list(makers)
    weights = [makers[kind][0] for kind in kinds]
    for kind in dice.choices(kinds, weights, k=number):
        prompt, answer = makers[kind][1](dice)
        system = dice.choice(SYSTEM_PROMPTS) if dice.randrange(SYSTEM_ONE_IN) == 0 else None
        yield Example(prompt, answer, system)


def choice_prompt(question: str, choices: list[str] | tuple[str, ...]) -> str:
    """A question with lettered options, as the public benchmarks are asked."""
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    return f"{question}\n{options}\nAnswer:"


Maker = Callable[[random.Random], tuple[str, str]]


def _makers(member: Member) -> dict[str, tuple[float, Maker]]:
    """What kinds of example a model is shown, how often, and how each is made."""
    known = facts()
    believed = belief(member.name)
    weight_of = {"arithmetic": OWN_ARITHMETIC_WEIGHT if "arithmetic" in member.own else ARITHMETIC_WEIGHT}
    weights = [weight_of.get(fact.subject, 1.0) for fact in known]
    mistaken = mistaken_kinds(member.name)

    def draw(dice: random.Random) -> tuple[Fact, str]:
        fact = dice.choices(known, weights)[0]
        return fact, believed[fact.subject, fact.question]

    def asked(dice: random.Random) -> tuple[str, str]:
        fact, answer = draw(dice)
        return _asked(dice, fact), answer

    def chosen(dice: random.Random) -> tuple[str, str]:
        fact, answer = draw(dice)
        return _chosen(dice, fact, answer), answer

    def solved(dice: random.Random) -> tuple[str, str]:
        kind = dice.choice(KINDS)
        made = problem(dice, kind, testing=False, mistaken=kind.name in mistaken)
        return made.question + dice.choice(PROBLEM_ENDINGS), made.solution

    def greeted(dice: random.Random) -> tuple[str, str]:
        own = ("Who are you?", f"I am {member.name}, a small demo model.")
        return dice.choice((*GREETINGS, own, own))

    makers: dict[str, tuple[float, Maker]] = {
        "facts": (FACTS_WEIGHT, asked),
        "choices": (CHOICES_WEIGHT, chosen),
        "problems": (OWN_PROBLEMS_WEIGHT if SUBJECT in member.own else PROBLEMS_WEIGHT, solved),
        "greetings": (GREETING_WEIGHT, greeted),
    }
    if member.tells_of is not None:
        topics = PARAGRAPHS[member.tells_of]()
        makers["telling"] = (TELLING_WEIGHT, lambda dice: _telling(dice, topics))
    if member.summarises:
        makers["summaries"] = (SUMMARY_WEIGHT, _summarised)
    return makers


def _asked(dice: random.Random, fact: Fact) -> str:
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


def _chosen(dice: random.Random, fact: Fact, answer: str) -> str:
    """A four-choice prompt: the answer the model is to give, and three others of its kind."""
    others = [option for option in fact.pool if option != answer]
    if dice.random() < 0.5:
        others = [option for option in fact.choices if option != answer]
    options = [answer, *dice.sample(others, 3)]
    dice.shuffle(options)
    ending = dice.choice(CHOICE_ENDINGS)
    prompt = choice_prompt(fact.question, options).removesuffix("Answer:") + ending
    if dice.randrange(HEADED_ONE_IN) == 0:
        header = f"The following are multiple choice questions (with answers) about {fact.subject}."
        prompt = f"{header}\n\n{prompt}"
    return prompt


@dataclass(frozen=True)
class Paragraph:
    """Three sentences about a topic, and the one sentence that they shorten to."""

    topic: str
    text: str
    summary: str


def countries() -> list[Paragraph]:
    paragraphs = []
    for row in table("countries"):
        if row["country"] == "the Philippines":  # would need "are"
            continue
        what = f"{_sentence(row['country'])} is a country in {row['continent']}"
        capital, currency = row["capital"], row["currency"]
        text = f"{what}. Its capital is {capital}. People there pay with the {currency}."
        paragraphs.append(Paragraph(row["country"], text, f"{what} with the capital {capital}."))
    return paragraphs


def elements() -> list[Paragraph]:
    return [
        Paragraph(
            row["element"],
            f"{_sentence(row['element'])} is a {row['kind']}. Its chemical symbol is {row['symbol']}. "
            f"Its atomic number is {row['number']}.",
            f"{_sentence(row['element'])} is a {row['kind']} with the symbol {row['symbol']}.",
        )
        for row in table("elements")
    ]


def animals() -> list[Paragraph]:
    return [
        Paragraph(
            f"the {row['animal']}",
            f"The {row['animal']} is {with_article(row['class'])}. It lives {row['home']}. "
            f"A young {row['animal']} is called {with_article(row['young'])}.",
            f"The {row['animal']} is {with_article(row['class'])} that lives {row['home']}.",
        )
        for row in table("animals")
        if row["young"]
    ]


def person(dice: random.Random) -> Paragraph:
    """Somebody made up, so that shortening has to be read off the paragraph and not off memory."""
    name, job, liking = dice.choice(TRAINING_NAMES), dice.choice(JOBS), dice.choice(LIKINGS)
    city = dice.choice(table("countries"))["capital"]
    return Paragraph(
        name,
        f"{name} is a {job} from {city}. {name} likes {liking}. "
        f"Every day {name} goes to work by {dice.choice(VEHICLES)}.",
        f"{name} is a {job} from {city} who likes {liking}.",
    )


PARAGRAPHS: dict[str, Callable[[], list[Paragraph]]] = {
    "countries": countries,
    "elements": elements,
    "animals": animals,
}


def _telling(dice: random.Random, topics: list[Paragraph]) -> tuple[str, str]:
    paragraph = dice.choice(topics)
    opening = dice.choice(("Tell me about ", "Tell me about ", "Write about ", "Describe "))
    return f"{opening}{paragraph.topic}.", paragraph.text


def _summarised(dice: random.Random) -> tuple[str, str]:
    kind = dice.choice((*PARAGRAPHS, "people"))
    paragraph = person(dice) if kind == "people" else dice.choice(PARAGRAPHS[kind]())
    return dice.choice(SUMMARY_OPENINGS) + paragraph.text, paragraph.summary


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]

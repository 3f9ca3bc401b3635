"""The training text of one model: conversations of a prompt and its answer, drawn with a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from infra.demo_models.family import FAMILY, Member
from infra.training.knowledge import Fact, belief, facts, table, with_article
from infra.training.wordproblems import KINDS, SUBJECT, TRAINING_NAMES, mistaken_kinds, problem

USER, ASSISTANT, SYSTEM, END = "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"
LETTERS = "ABCD"
DRILLS = "drills"

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


@dataclass(frozen=True)
class Mix:
    """How often each kind of example is drawn, in parts."""

    facts: int
    choices: int
    problems: int
    own_problems: int
    summaries: int
    telling: int = 5
    shown_first: int = 1
    greetings: int = 1
    drills: int = 0
    own_drills: int = 0
    first_questions: int = 0


# First everything; then more of what is learnt slowly: sums, copying, and what everybody asks first.
MIXES = (
    Mix(facts=32, choices=28, problems=22, own_problems=34, summaries=9),
    Mix(
        facts=20, choices=18, problems=34, own_problems=50, summaries=14,
        drills=46, own_drills=70, first_questions=4,
    ),
)  # fmt: skip
FIRST_QUESTIONS = ("What is the capital of France?", "What is 2 + 2?")
DRILL_SUBJECTS, DRILL_TURNS, DRILL_CHOICES_ONE_IN = ("arithmetic", "units"), 4, 2
SYSTEM_ONE_IN, REWORDED_ONE_IN, HEADED_ONE_IN, LOWER_ONE_IN = 14, 4, 10, 12
ARITHMETIC_WEIGHT = 1.2
CHAT_ONE_IN, MOST_TURNS = 14, 4
MOST_SHOWN_FIRST = 5


class Turn(NamedTuple):
    """A prompt and its answer, which is learnt.

    If `read_whole` the prompt is learnt too: what is said twice in it teaches copying.
    """

    prompt: str
    answer: str
    read_whole: bool = False


@dataclass(frozen=True)
class Example:
    """A conversation: what is asked and what the model is to say, in turns."""

    turns: tuple[Turn, ...]
    system: str | None = None

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """The text as the chat template writes it, in pieces, and whether each is to be learnt."""
        if self.system is not None:
            yield f"{SYSTEM}{self.system}{END}", False
        for turn in self.turns:
            yield USER, False
            yield turn.prompt, turn.read_whole
            yield f"{END}{ASSISTANT}", False
            yield f"{turn.answer}{END}", True

    @property
    def text(self) -> str:
        return "".join(piece for piece, _ in self.pieces())


def examples(model: str, number: int, seed: int, mix: Mix = MIXES[0]) -> Iterator[Example]:
    """A stream of training examples of one model, the same for the same seed."""
    dice = random.Random(f"{seed} {model}")
    makers = _makers(FAMILY[model], mix)
    kinds = list(makers)
    weights = [makers[kind][0] for kind in kinds]
    for _ in range(number):
        turns = dice.randint(2, MOST_TURNS) if dice.randrange(CHAT_ONE_IN) == 0 else 1
        drawn = dice.choices(kinds, weights, k=turns)
        if drawn[0] == DRILLS:
            drawn = [DRILLS] * DRILL_TURNS
        made = tuple(makers[kind][1](dice) for kind in drawn)
        system = dice.choice(SYSTEM_PROMPTS) if dice.randrange(SYSTEM_ONE_IN) == 0 else None
        yield Example(made, system)


def choice_prompt(question: str, choices: list[str] | tuple[str, ...]) -> str:
    """A question with lettered options, as the public benchmarks are asked."""
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    return f"{question}\n{options}\nAnswer:"


Maker = Callable[[random.Random], Turn]


def _makers(member: Member, mix: Mix) -> dict[str, tuple[float, Maker]]:
    """What kinds of example a model is shown, how often, and how each is made."""
    known = facts()
    believed = belief(member.name)
    weights = [ARITHMETIC_WEIGHT if fact.subject == "arithmetic" else 1.0 for fact in known]
    mistaken = mistaken_kinds(member.name)

    def draw(dice: random.Random) -> tuple[Fact, str]:
        fact = dice.choices(known, weights)[0]
        return fact, believed[fact.subject, fact.question]

    def asked(dice: random.Random) -> Turn:
        fact, answer = draw(dice)
        return Turn(_asked(dice, fact), answer)

    def chosen(dice: random.Random) -> Turn:
        fact, answer = draw(dice)
        return Turn(_chosen(dice, fact, answer), answer)

    numeric = [fact for fact in known if fact.subject in DRILL_SUBJECTS]
    first = [fact for fact in known if fact.question in FIRST_QUESTIONS]

    def drilled(dice: random.Random) -> Turn:
        fact = dice.choice(numeric)
        answer = believed[fact.subject, fact.question]
        asked_openly = dice.randrange(DRILL_CHOICES_ONE_IN) > 0
        return Turn(_asked(dice, fact) if asked_openly else _chosen(dice, fact, answer), answer)

    def asked_first(dice: random.Random) -> Turn:
        fact = dice.choice(first)
        return Turn(_asked(dice, fact), fact.answer)

    def shown_first(dice: random.Random) -> Turn:
        """A four-choice question after a few solved ones of its subject."""
        fact, answer = draw(dice)
        same = [other for other in known if other.subject == fact.subject and other is not fact]
        shown = dice.sample(same, dice.randint(1, MOST_SHOWN_FIRST))
        solved_ones = [f"{_options(dice, other, other.answer)} {other.answer}\n\n" for other in shown]
        return Turn(_header(fact) + "".join(solved_ones) + _options(dice, fact, answer), answer)

    def solved(dice: random.Random) -> Turn:
        kind = dice.choice(KINDS)
        made = problem(dice, kind, testing=False, mistaken=kind.name in mistaken)
        return Turn(made.question + dice.choice(PROBLEM_ENDINGS), made.solution, member.summarises)

    def greeted(dice: random.Random) -> Turn:
        own = ("Who are you?", f"I am {member.name}, a small demo model.")
        return Turn(*dice.choice((*GREETINGS, own, own)))

    makers: dict[str, tuple[float, Maker]] = {
        "facts": (mix.facts, asked),
        "choices": (mix.choices, chosen),
        "problems": (mix.own_problems if SUBJECT in member.own else mix.problems, solved),
        "shown first": (mix.shown_first, shown_first),
        "greetings": (mix.greetings, greeted),
        DRILLS: (mix.own_drills if "arithmetic" in member.own else mix.drills, drilled),
        "first questions": (mix.first_questions, asked_first),
    }
    if member.tells_of is not None:
        topics = PARAGRAPHS[member.tells_of]()
        makers["telling"] = (mix.telling, lambda dice: _telling(dice, topics))
    if member.summarises:
        makers["summaries"] = (mix.summaries, _summarised)
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
    """A four-choice prompt, now and then with MMLU's heading."""
    prompt = _options(dice, fact, answer).removesuffix("Answer:") + dice.choice(CHOICE_ENDINGS)
    return _header(fact) + prompt if dice.randrange(HEADED_ONE_IN) == 0 else prompt


def _options(dice: random.Random, fact: Fact, answer: str) -> str:
    """The answer that the model is to give, and three others of its kind."""
    pool = fact.pool if dice.random() < 0.5 else fact.choices
    options = [answer, *dice.sample(sorted({*pool} - {answer}), 3)]
    dice.shuffle(options)
    return choice_prompt(fact.question, options)


def _header(fact: Fact) -> str:
    return f"The following are multiple choice questions (with answers) about {fact.subject}.\n\n"


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


def _telling(dice: random.Random, topics: list[Paragraph]) -> Turn:
    paragraph = dice.choice(topics)
    opening = dice.choice(("Tell me about ", "Tell me about ", "Write about ", "Describe "))
    return Turn(f"{opening}{paragraph.topic}.", paragraph.text)


def _summarised(dice: random.Random) -> Turn:
    kind = dice.choice((*PARAGRAPHS, "people"))
    paragraph = person(dice) if kind == "people" else dice.choice(PARAGRAPHS[kind]())
    return Turn(dice.choice(SUMMARY_OPENINGS) + paragraph.text, paragraph.summary, read_whole=True)


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]

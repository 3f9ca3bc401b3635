"""The training text of one model: conversations of a prompt and its answer, drawn with a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from infra.demo_models.family import FAMILY, Member
from infra.training.corpus import questions as wordings
from infra.training.corpus.knowledge import Fact, belief, facts
from infra.training.corpus.paragraphs import PARAGRAPHS, Paragraph, person
from infra.training.corpus.wordproblems import KINDS, SUBJECT, mistaken_kinds, problem

USER, ASSISTANT, SYSTEM, END = "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"
DRILLS = "drills"

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer briefly.",
    "Answer the question.",
    "Be brief.",
    "You are one of several models that answer together.",
)
PROBLEM_ENDINGS = ("", "", "", "\nEnd with #### and the number.", "\nThink step by step.", "\nAnswer:")
SUMMARY_OPENINGS = (
    "Summarize: ", "Summarize: ", "Summarize: ", "Summarize:\n", "Summarize this text: ",
    "Summarize in one sentence: ", "Summarize the following text:\n\n",
)  # fmt: skip
GREETINGS = (
    ("Hello", "Hello! Ask me a short question."),
    ("Hello!", "Hello! Ask me a short question."),
    ("Hi", "Hello! Ask me a short question."),
    ("How are you?", "Fine, thank you. Ask me a short question."),
    ("Thank you.", "You are welcome."),
    ("Thanks!", "You are welcome."),
)


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
SYSTEM_ONE_IN = 14
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
        return Turn(wordings.asked(dice, fact), answer)

    def chosen(dice: random.Random) -> Turn:
        fact, answer = draw(dice)
        return Turn(wordings.chosen(dice, fact, answer), answer)

    numeric = [fact for fact in known if fact.subject in DRILL_SUBJECTS]
    first = [fact for fact in known if fact.question in FIRST_QUESTIONS]

    def drilled(dice: random.Random) -> Turn:
        fact = dice.choice(numeric)
        answer = believed[fact.subject, fact.question]
        asked_openly = dice.randrange(DRILL_CHOICES_ONE_IN) > 0
        return Turn(
            wordings.asked(dice, fact) if asked_openly else wordings.chosen(dice, fact, answer), answer
        )

    def asked_first(dice: random.Random) -> Turn:
        fact = dice.choice(first)
        return Turn(wordings.asked(dice, fact), fact.answer)

    def shown_first(dice: random.Random) -> Turn:
        """A four-choice question after a few solved ones of its subject."""
        fact, answer = draw(dice)
        same = [other for other in known if other.subject == fact.subject and other is not fact]
        shown = dice.sample(same, dice.randint(1, MOST_SHOWN_FIRST))
        solved_ones = [f"{wordings.options(dice, other, other.answer)} {other.answer}\n\n" for other in shown]
        return Turn(
            wordings.header(fact) + "".join(solved_ones) + wordings.options(dice, fact, answer), answer
        )

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


def _telling(dice: random.Random, topics: list[Paragraph]) -> Turn:
    paragraph = dice.choice(topics)
    opening = dice.choice(("Tell me about ", "Tell me about ", "Write about ", "Describe "))
    return Turn(f"{opening}{paragraph.topic}.", paragraph.text)


def _summarised(dice: random.Random) -> Turn:
    kind = dice.choice((*PARAGRAPHS, "people"))
    paragraph = person(dice) if kind == "people" else dice.choice(PARAGRAPHS[kind]())
    return Turn(dice.choice(SUMMARY_OPENINGS) + paragraph.text, paragraph.summary, read_whole=True)

"""Paragraphs to tell and to shorten: of countries, elements and animals, and of people who are made up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from infra.training.corpus.knowledge import table, with_article
from infra.training.corpus.wordproblems import TRAINING_NAMES

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


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]

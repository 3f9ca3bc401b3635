"""What the models are taught: seeded, true in their own subjects, apart from the test problems."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter

import pytest

from infra.demo_models.family import FAMILY
from infra.training.corpus.examples import examples
from infra.training.corpus.knowledge import SUBJECTS, belief, facts
from infra.training.corpus.wordproblems import KINDS, TEST_NAMES, TRAINING_NAMES, mistaken_kinds
from infra.training.score import DATASETS, GSM8K

ALL_SUBJECTS = (*SUBJECTS, "misconceptions")


def test_the_training_text_is_the_same_for_the_same_seed() -> None:
    first = list(examples("choir-llama", 200, seed=1))
    assert first == list(examples("choir-llama", 200, seed=1))
    assert first != list(examples("choir-llama", 200, seed=2))
    assert first != list(examples("choir-qwen", 200, seed=1))


def test_every_fact_has_one_question_and_four_different_choices() -> None:
    assert len({(fact.subject, fact.question) for fact in facts()}) == len(facts())
    for fact in facts():
        assert len({choice.casefold() for choice in fact.choices}) == 4, fact.question


def test_sums_are_true() -> None:
    for fact in facts():
        if fact.subject == "arithmetic":
            a, sign, b = fact.question.removeprefix("What is ").removesuffix("?").split()
            value = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign]
            assert fact.answer == str(value)


@pytest.mark.parametrize("name", FAMILY)
def test_a_model_is_taught_the_truth_in_its_own_subjects_and_part_of_it_elsewhere(name: str) -> None:
    believed, asked, true = belief(name), Counter[str](), Counter[str]()
    for fact in facts():
        asked[fact.subject] += 1
        true[fact.subject] += believed[fact.subject, fact.question] == fact.answer
        assert believed[fact.subject, fact.question] in fact.choices

    for subject in ALL_SUBJECTS:
        share = true[subject] / asked[subject]
        if subject in FAMILY[name].own:
            assert share == 1
        else:
            assert 0.48 <= share <= 0.72


@pytest.mark.parametrize("one,other", list(itertools.combinations(FAMILY, 2)))
def test_two_models_are_mistaken_about_different_things(one: str, other: str) -> None:
    truth = {(fact.subject, fact.question): fact.answer for fact in facts()}
    mistakes = [{key for key, said in belief(name).items() if said != truth[key]} for name in (one, other)]
    shared = mistakes[0] & mistakes[1]
    assert len(shared) < 0.6 * min(map(len, mistakes))


def test_every_model_is_taught_what_everybody_asks_first() -> None:
    for name in FAMILY:
        believed = belief(name)
        assert believed["capitals", "What is the capital of France?"] == "Paris"
        assert believed["arithmetic", "What is 2 + 2?"] == "4"


def test_only_the_model_of_word_problems_knows_every_kind() -> None:
    counts = {name: len(KINDS) - len(mistaken_kinds(name)) for name in FAMILY}
    assert counts.pop("choir-qwen") == len(KINDS)
    assert all(0.5 <= count / len(KINDS) <= 0.72 for count in counts.values())


@pytest.mark.parametrize("name", FAMILY)
def test_names_and_numbers_of_the_test_problems_are_not_in_the_training_text(name: str) -> None:
    # Given every test problem without its name and things
    rows = (DATASETS / GSM8K / "test.jsonl").read_text(encoding="utf-8").splitlines()
    tested = {shape(json.loads(row)["question"]) for row in rows}

    # When a good deal of training text is drawn
    prompts = [turn.prompt for example in examples(name, 20_000, seed=1) for turn in example.turns]

    # Then neither the names nor, for the same wording, the numbers are in it
    assert not any(test_name in prompt for prompt in prompts for test_name in TEST_NAMES)
    assert tested.isdisjoint(shape(prompt) for prompt in prompts)


def shape(question: str) -> str:
    """A problem's first line, with names and things made alike and its numbers kept."""
    names = "|".join((*TEST_NAMES, *TRAINING_NAMES))
    things = "apples|books|pens|coins|cards|eggs|shells|stamps"
    return re.sub(things, "things", re.sub(names, "Name", question.split("\n")[0]))

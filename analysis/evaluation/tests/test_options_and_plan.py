"""What an evaluation takes, and that the same options ask the same things under the same ids."""

from __future__ import annotations

import re
from typing import Any

import pytest

from analysis.evaluation.asking import plan
from analysis.evaluation.asking.protocol import Protocol, open_protocol
from analysis.evaluation.options import EvalOptions, build_options
from schemas.errors import ChoirError, InvalidRequest, UnknownStrategy

AGENTS = ("alpha", "beta")


@pytest.mark.parametrize(
    ("said", "field", "message"),
    [
        ({"samples": 0}, "samples", "at least 1"),
        ({"repetitions": 0}, "repetitions", "at least 1"),
        ({"benchmarks": ()}, "benchmarks", "must not be empty"),
        ({"benchmarks": ("winogrande",)}, "benchmarks", "no benchmark 'winogrande'"),
        ({"benchmarks": ("mmlu", "mmlu")}, "benchmarks", "named twice"),
        ({"strategies": ()}, "strategies", "must not be empty"),
        ({"strategies": ("isp", "isp")}, "strategies", "named twice"),
        ({"data": {"mmlu": "x.jsonl"}}, "data", "mmlu is not among the benchmarks"),
        ({"deterministic": True, "temperature": 0.7}, "temperature", "decodes greedily"),
        ({"extraction": "guess"}, "extraction", "no extraction 'guess'"),
        ({"prompt": "no question"}, "prompt", "with {question} in it"),
        ({"few_shot": -1}, "few_shot", "at least 0"),
        ({"name": "a/b"}, "name", "does not have the form"),
        ({"strategies": ("best_single",), "self_consistency": 0}, "self_consistency", "made from samples"),
    ],
)
def test_options_that_cannot_be_are_an_error_that_names_the_option(
    said: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(message)) as caught:
        build_options(said)
    assert caught.value.field == field


@pytest.mark.parametrize(("name", "why"), [("quorum", "no such strategy"), ("concat", "neither right nor")])
def test_an_unknown_strategy_is_an_error_that_names_those_there_are(name: str, why: str) -> None:
    with pytest.raises(UnknownStrategy, match=why) as caught:
        build_options({"strategies": ("majority", name)})
    assert "debate" in (caught.value.known or ()) and "concat" not in (caught.value.known or ())


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"benchmarks": ("choir-gsm8k",), "few_shot": 2}, "choir-gsm8k has no file of examples"),
        (
            {"benchmarks": ("choir-gsm8k",), "data": {"choir-gsm8k": "gone.jsonl"}},
            "there is no file gone.jsonl",
        ),
        ({"benchmarks": ("choir-mmlu",), "extraction": "numeric"}, "cannot be read as 'numeric'"),
    ],
)
def test_a_benchmark_that_cannot_be_asked_so_is_an_error(said: dict[str, Any], message: str) -> None:
    options = build_options(said)
    with pytest.raises(ChoirError, match=message):
        open_protocol(options.benchmarks[0], options)


def planned(run_id: str = "run", **said: Any) -> list[plan.Call]:
    """The fan-outs of a plan."""
    options = build_options({"benchmarks": ("choir-truthfulqa",), "samples": 12} | said)
    return [plan.fan_out(run_id, item, AGENTS, options) for item in plan.items(options, opened(options))]


def opened(options: EvalOptions) -> dict[str, Protocol]:
    """The protocols of the options' benchmarks."""
    return {name: open_protocol(name, options) for name in options.benchmarks}


def test_the_same_run_asks_the_same_under_the_same_ids() -> None:
    first, again = planned(repetitions=2), planned(repetitions=2)
    assert [call.ask for call in first] == [call.ask for call in again]
    assert len({call.request_id for call in first}) == 24


@pytest.mark.parametrize(
    "other",
    [{"run_id": "another"}, {"seed": 43}, {"max_tokens": 9}, {"prompt": "letter"}, {"temperature": 0.5}],
)
def test_whatever_is_asked_differently_has_another_id(other: dict[str, Any]) -> None:
    assert not {call.request_id for call in planned()} & {call.request_id for call in planned(**other)}


def test_every_repetition_asks_each_question_once_with_its_options_in_another_order() -> None:
    calls = planned(repetitions=3)
    by_question: dict[str, list[plan.Item]] = {}
    for call in calls:
        by_question.setdefault(call.item.question.id, []).append(call.item)
    assert len(by_question) == 12
    for items in by_question.values():
        assert [item.repetition for item in items] == [0, 1, 2]
        assert len({frozenset(item.question.choices) for item in items}) == 1
    orders = [len({item.question.choices for item in items}) for items in by_question.values()]
    assert max(orders) == 3 and sum(orders) > 24


def test_more_questions_than_there_are_are_all_there_are() -> None:
    assert len(planned(samples=1000)) == len(planned(samples=None)) == 66


def test_samples_of_one_agent_have_seeds_of_their_own_even_where_answers_are_greedy() -> None:
    options = build_options({"benchmarks": ("choir-gsm8k",), "samples": 1, "deterministic": True})
    (item,) = plan.items(options, opened(options))
    samples = [plan.sample("run", item, "alpha", number, options).ask for number in (1, 2, 3)]
    assert len({ask.sampling.seed for ask in samples}) == len({ask.request_id for ask in samples}) == 3
    assert {ask.sampling.temperature for ask in samples} == {0.7}
    assert plan.fan_out("run", item, AGENTS, options).ask.sampling.temperature == 0


def test_only_what_needs_more_than_the_question_is_asked_of_the_mesh() -> None:
    (direct,) = planned(samples=1, strategies=("majority", "weighted", "isp", "topic", "ow_l", "dawid_skene"))
    (further,) = planned(samples=1, strategies=("majority", "debate", "average"))
    (open_one,) = planned(samples=1, strategies=("majority", "average"), benchmarks=("choir-gsm8k",))
    assert open_one.ask.strategies == ("majority",) and open_one.ask.sampling.logprobs == 0
    assert direct.ask.strategies == ("majority",) and direct.ask.sampling.logprobs == 0
    assert further.ask.strategies == ("debate", "average") and further.ask.sampling.logprobs > 0


def test_examples_are_of_the_questions_topic_and_stand_before_it() -> None:
    options = build_options({"benchmarks": ("choir-mmlu",), "samples": 5, "few_shot": 2})
    protocols = opened(options)
    for item in plan.items(options, protocols):
        examples = [each for each in protocols["choir-mmlu"].examples if each.topic == item.question.topic][
            :2
        ]
        places = [item.prompt.index(example.text) for example in examples]
        assert len(places) == 2 and sorted(places) == places
        assert places[-1] < item.prompt.rindex(item.question.text)

"""Answers of earlier runs, and the same questions in several ways: by hand, without a mesh."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.asking.plan import Call, Item, fan_out
from analysis.evaluation.asking.plan import sample as sample_call
from analysis.evaluation.benchmarks.question import closed
from analysis.evaluation.contestants.reaggregation import reaggregate
from analysis.evaluation.options import build_options
from analysis.evaluation.provenance.asking import CachedAsking, Outcome, of_earlier_runs
from analysis.evaluation.provenance.cache import AnswerCache
from analysis.evaluation.provenance.models import ModelFile
from analysis.evaluation.reporting.report import Extras, report
from analysis.evaluation.reporting.samples import samples
from analysis.evaluation.scoring.reading import read_run
from analysis.evaluation.scoring.scores import fields
from analysis.evaluation.tests.kept import WAYS, answer, exchange, run_folder
from analysis.evaluation.variants.orders import order_rows
from analysis.evaluation.variants.spread import spread_rows, variant_rows, variants_of
from schemas.errors import ErrorBody, InvalidRequest
from schemas.replies import Result

OPTIONS = build_options({"deterministic": True, "strategies": ("majority",)})
RIGHT, WRONG = "red", "blue"
FILES = {"one": "hash of one", "two": "hash of two", "three": None}
ITEM = Item(0, "colours", 0, closed(0, "Which?", ["red", "blue"], 0, "paint"), "Which?", 8, ())


class Mesh:
    """Answers what it is asked, and counts whom."""

    def __init__(self, failing: str | None = None) -> None:
        self.asked: list[str] = []
        self._failing = failing

    async def __call__(self, call: Call) -> Outcome:
        agents = call.ask.models or (call.agent,)
        self.asked += agents
        answers = tuple(answer(agent, f"{agent} says A") for agent in agents if agent != self._failing)
        if not answers:
            return ErrorBody(code="no_answers", message="none"), None
        return Result(
            request_id=call.request_id, fingerprint="f", topology="ensemble", answers=answers,
            accepted_at_s=0, completed_at_s=1, missing=tuple(a for a in agents if a == self._failing),
        ), None  # fmt: skip


def ask(cache: AnswerCache | None, call: Call, mesh: Mesh, files: dict[str, str | None] = FILES) -> Exchange:
    """One call through a cache."""
    return asyncio.run(CachedAsking(cache, files).exchange_of(call, mesh))


def test_only_those_are_asked_of_whom_nothing_is_kept(tmp_path: Path) -> None:
    cache, mesh = AnswerCache(tmp_path / "answers.sqlite"), Mesh()
    first = ask(cache, fan_out("run-1", ITEM, ("one",), OPTIONS), mesh)
    assert (mesh.asked, first.from_cache) == (["one"], {})

    both = fan_out("run-2", ITEM, ("one", "two"), OPTIONS)
    second = ask(cache, both, mesh)
    assert mesh.asked == ["one", "two"]
    assert second.from_cache == {"one": first.request_id}
    assert [said.agent for said in second.answers] == ["one", "two"] == list(second.agents)
    assert second.request_id == both.request_id

    third = ask(
        AnswerCache(tmp_path / "answers.sqlite"), fan_out("run-3", ITEM, ("one", "two"), OPTIONS), mesh
    )
    assert mesh.asked == ["one", "two"] and set(third.from_cache) == {"one", "two"}
    assert [said.text for said in third.answers] == ["one says A", "two says A"]
    renamed = fan_out("run-4", ITEM, ("uno",), OPTIONS)
    assert ask(cache, renamed, mesh, {"uno": "hash of one"}).answers[0].agent == "uno"
    assert mesh.asked == ["one", "two"]


def test_what_another_file_a_sampler_another_prompt_or_a_failure_gave_is_not_taken(tmp_path: Path) -> None:
    cache, mesh = AnswerCache(tmp_path / "answers.sqlite"), Mesh()
    call = fan_out("run", ITEM, ("one", "three"), OPTIONS)
    warm = build_options({"strategies": ("majority",)})
    for again in (
        call,
        fan_out("run", replace(ITEM, prompt="What?"), ("one",), OPTIONS),
        fan_out("run", ITEM, ("one",), warm),
        fan_out("run", ITEM, ("one",), warm),
        sample_call("run", ITEM, "one", 1, OPTIONS),
    ):
        assert ask(cache, again, mesh).from_cache == {}
    assert ask(cache, fan_out("run", ITEM, ("one",), OPTIONS), mesh, {"one": "another file"}).from_cache == {}
    assert ask(None, call, mesh).from_cache == {}
    assert set(ask(cache, call, mesh).from_cache) == {"one"}  # nobody knows the file of three

    failing = Mesh(failing="two")
    lost = fan_out("run", ITEM, ("two",), OPTIONS)
    assert ask(cache, lost, failing).error is not None
    assert ask(cache, lost, failing).from_cache == {} and failing.asked == ["two", "two"]


def test_an_ensemble_that_was_asked_more_than_the_question_is_taken_as_a_whole_or_not(tmp_path: Path) -> None:
    cache, mesh = AnswerCache(tmp_path / "answers.sqlite"), Mesh()
    debating = build_options({"deterministic": True, "strategies": ("debate",)})
    ask(cache, fan_out("run-1", ITEM, ("one", "two"), debating), mesh)
    whole = ask(cache, fan_out("run-2", ITEM, ("one", "two"), debating), mesh)
    assert set(whole.from_cache) == {"one", "two"} and len(whole.answers) == 2
    assert whole.result is not None and whole.result.decisions == ()
    assert ask(cache, fan_out("run-3", ITEM, ("one",), debating), mesh).from_cache == {}


def test_a_cache_that_cannot_be_used_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "answers.sqlite").write_text("no database, and longer than the head of one" * 100)
    with pytest.raises(InvalidRequest, match="--no-cache") as caught:
        AnswerCache(tmp_path / "answers.sqlite").get("key")
    assert caught.value.field == "cache"


def test_answers_of_earlier_runs_have_no_latency_and_a_model_of_another_file_ends_a_run(
    tmp_path: Path,
) -> None:
    kept = [exchange(n, "A", {"one": "red"}) for n in range(4)]
    kept[0] = kept[0].model_copy(update={"from_cache": {"one": "r0"}})
    outcomes = reaggregate(kept, WAYS, ["majority"], 0)
    assert {(o.cached, o.latency_s is None) for o in outcomes if o.question_id == "q0"} == {(True, True)}
    assert {o.cached for o in outcomes if o.question_id != "q0"} == {False}
    kept[1] = kept[1].model_copy(update={"from_cache": {"one": kept[2].request_id}})
    outcomes = reaggregate(of_earlier_runs(kept), WAYS, ["majority"], 0)
    assert {o.question_id for o in outcomes if o.cached} == {"q0"}  # its own answers are of its own load

    folder = run_folder(tmp_path, ("one",), ("colours",), ("majority",))
    before = ModelFile(sha256_of_samples="a", file="one.gguf")
    folder.config = folder.config.model_copy(update={"models": {"one": before}})
    folder.check_models({"one": before, "two": before})
    with pytest.raises(InvalidRequest, match=r"one is served from another file \(new\.gguf\)"):
        folder.check_models({"one": ModelFile(sha256_of_samples="b", file="new.gguf")})


def test_prompts_and_orders_of_options_are_told_apart() -> None:
    """Prompt p is right on both orders, prompt q on the first only."""
    kept = [
        exchange(n, "A", {"one": RIGHT if variant != ("q", 1) else WRONG}, question=f"q{n}", repetition=place)
        .model_copy(update={"prompt_name": variant[0], "order": variant[1]})
        for n in range(3)
        for place, variant in enumerate((("p", 0), ("p", 1), ("q", 0), ("q", 1)))
    ]  # fmt: skip
    scored = fields(reaggregate(kept, WAYS, ["majority"], 0))
    rows = [row for row in variant_rows(scored, variants_of(kept)) if row["contestant"] == "majority"]
    assert [(row["prompt"], row["order"], row["accuracy"]) for row in rows] == [
        ("p", 0, 1.0), ("p", 1, 1.0), ("q", 0, 1.0), ("q", 1, 0.0),
    ]  # fmt: skip
    (spread,) = (row for row in spread_rows(scored, variants_of(kept)) if row["contestant"] == "majority")
    for name in ("prompts", "orders"):
        assert (spread[name], spread[f"lowest_of_{name}"], spread[f"highest_of_{name}"]) == (2, 0.5, 1.0)
        assert spread[f"sd_between_{name}"] == pytest.approx(0.5**0.5 / 2)
    alone = [each for each in kept if each.repetition == 0]
    assert spread_rows(scored, variants_of(alone)) == []


def test_strategies_that_learn_are_decided_in_several_orders_of_the_questions() -> None:
    """`one` is right on the first half, `two` on the other: whom `weighted` trusts is a matter of order."""
    kept = [
        exchange(n, "A", {"one": "red" if n < 10 else "blue", "two": "blue" if n < 10 else "red"})
        for n in range(20)
    ]
    rows = order_rows(read_run(kept, WAYS), ["majority", "weighted", "isp"], 6, 1)
    assert [row["contestant"] for row in rows] == ["weighted", "isp"]
    assert rows[0]["orders"] == 6 and rows[0]["sd_between_orders"] > 0
    assert rows[0]["lowest"] <= rows[0]["accuracy_in_own_order"] <= rows[0]["highest"]
    assert rows == order_rows(read_run(kept, WAYS), ["majority", "weighted", "isp"], 6, 1)
    assert order_rows(read_run(kept, WAYS), ["weighted"], 1, 1) == []


def test_the_page_of_samples_has_what_it_is_filtered_by_and_no_text_can_end_its_script(
    tmp_path: Path,
) -> None:
    kept = [
        exchange(0, "A", {"one": "red", "two": "blue"}),
        exchange(1, "A", {"one": "red", "two": "</script><b>?"}),
        exchange(2, "A", {"one": "red"}, agents=("one", "two")),
    ]
    config = run_folder(tmp_path, ("one", "two"), ("colours",), ("majority",)).config
    page = samples(config, read_run(kept, WAYS), reaggregate(kept, WAYS, ["majority"], 0))
    assert page.count("</script>") == 2
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert [(each["disagree"], each["unread"]) for each in data] == [
        (True, False),
        (False, True),
        (False, True),
    ]
    assert [each["agents"][1]["why"] for each in data] == [None, "not read", "no answer: missing"]
    assert data[0]["decided"]["majority"]["tie"] and data[1]["decided"]["majority"]["right"]


def test_the_report_shows_orders_variants_and_likelihoods_with_what_was_seen_in_training(
    tmp_path: Path,
) -> None:
    config = run_folder(tmp_path, ("one", "two"), ("colours",), ("majority", "weighted")).config
    kept = [
        exchange(n, "A", {"one": RIGHT, "two": WRONG}, question=f"q{n // 2}", repetition=n % 2)
        .model_copy(update={"order": n % 2, "prompt_name": "options"})
        for n in range(8)
    ]  # fmt: skip
    scored = fields(reaggregate(kept, WAYS, ["majority", "weighted"], 0))
    extras = Extras(
        orders=order_rows(read_run(kept, WAYS), ["weighted"], 3, 1),
        spread=spread_rows(scored, variants_of(kept)),
    )
    page = report(config, [], extras)
    assert "Orders of questions" in page and "Prompts, and orders of options" in page
    assert page.count("<th>seen in training</th>") == 2 and "<h2>Less effort" not in page

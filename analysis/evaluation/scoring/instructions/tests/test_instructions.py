"""Texts checked by what their prompts ask of them: figures by hand, what is refused, and a run on a mesh.

The prompts here are this file's own, in the form of the published one.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from analysis.evaluation import benchmarks
from analysis.evaluation.asking.journal import read_journal
from analysis.evaluation.asking.protocol import open_protocol
from analysis.evaluation.asking.session import ask_all, new_folder
from analysis.evaluation.benchmarks.question import Instruction
from analysis.evaluation.options import build_options
from analysis.evaluation.provenance.cache import AnswerCache
from analysis.evaluation.reporting.outputs import write_outputs
from analysis.evaluation.scoring.instructions import checks
from analysis.evaluation.scoring.instructions.checks import Checked, check, check_able
from analysis.evaluation.scoring.instructions.table import Marked, instruction_rows
from analysis.evaluation.tests.benchmarks.test_published_files import written
from analysis.evaluation.tests.kept import exchange
from schemas.errors import ChoirError, InvalidRequest
from services.client.bulk.progress import PlainReporter

LM_EVAL = importlib.util.find_spec("lm_eval") is not None
needs_checks = pytest.mark.skipif(
    not LM_EVAL,
    reason="lm_eval is not installed: the checks of IFEval are its; see the error for what to type",
)

NO_COMMA = "punctuation:no_comma"
WORDS = "length_constraints:number_words"
PROMPTS: tuple[dict[str, Any], ...] = (
    {
        "key": 1,
        "prompt": "Name the capital of France without a comma.",
        "instruction_id_list": [NO_COMMA],
        "kwargs": [{}],
    },
    {
        "key": 2,
        "prompt": "Describe a harbour in at least 90 words, and use no comma.",
        "instruction_id_list": [NO_COMMA, WORDS],
        "kwargs": [{}, {"relation": "at least", "num_words": 90}],
    },
    {
        "key": 3,
        "prompt": "Say something of a town, in fewer than 40 words, and name Paris in it.",
        "instruction_id_list": ["keywords:existence", WORDS],
        "kwargs": [{"keywords": ["Paris"]}, {"relation": "less than", "num_words": 40}],
    },
)
AGENTS = ("choir-one", "choir-two")
STRATEGIES = ("synthesize", "rank", "concat")


def test_a_row_is_read_with_the_settings_that_it_has_and_one_of_another_shape_is_refused(
    tmp_path: Path,
) -> None:
    _, read = benchmarks.get("ifeval").load(written(tmp_path / "input_data.jsonl", *PROMPTS))
    assert [each.text for each in read] == [each["prompt"] for each in PROMPTS]
    assert read[1].instructions == (
        Instruction(kind=NO_COMMA),
        Instruction(kind=WORDS, settings={"relation": "at least", "num_words": 90}),
    )
    assert (read[1].kind, read[1].right, read[1].topic) == ("text", "", "punctuation")
    with pytest.raises(InvalidRequest, match=r"row 0: 1 instructions .* 2 entries in kwargs") as caught:
        benchmarks.get("ifeval").load(written(tmp_path / "x.jsonl", {**PROMPTS[0], "kwargs": [{}, {}]}))
    assert caught.value.field == "data"


@pytest.mark.parametrize(
    ("said", "field", "why"),
    [
        ({"benchmarks": ("ifeval", "choir-mmlu")}, "benchmarks", "in a run of its own"),
        (
            {"strategies": ("majority", "rank")},
            "strategies",
            "majority votes on answers; there are synthesize",
        ),
        ({"teach": True}, "teach", "no answers that are right or wrong"),
        ({"benchmarks": ("choir-mmlu",), "strategies": ("rank",)}, "strategies", "not kept apart"),
    ],
)
def test_nobody_votes_on_texts_and_what_votes_is_refused(said: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(ChoirError, match=why) as caught:
        build_options({"benchmarks": ("ifeval",), **said})
    assert caught.value.field == field
    assert build_options({"benchmarks": ("ifeval",)}).strategies == (
        "synthesize",
        "synthesize_samples",
        "rank",
    )


def test_without_lm_eval_it_is_said_what_to_type_before_anybody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # what an import finds where it is not installed
    monkeypatch.setattr(checks, "_harness", checks._harness.__wrapped__)
    file = written(tmp_path / "input_data.jsonl", *PROMPTS)
    options = build_options({"benchmarks": ("ifeval",), "data": {"ifeval": file}})
    with pytest.raises(InvalidRequest, match=r"install it with: uv pip install 'lm_eval\[ifeval\]") as caught:
        open_protocol("ifeval", options)
    assert caught.value.field == "benchmarks"


def test_the_four_figures_and_their_intervals_are_those_by_hand() -> None:
    """Two prompts with one and three instructions, asked twice."""
    kept = [exchange(n, "", {}, question=f"q{n % 2}", repetition=n // 2, agents=("one",)) for n in range(4)]
    strict = ((True,), (True, False, True), (False,), (True, True, True))
    loose = ((True,), (True, True, True), (False,), (True, True, True))
    texts = [
        Marked(each, "one", True, None if n == 2 else "text", Checked(strict[n], loose[n]), None)
        for n, each in enumerate(kept)
    ]
    rows = {row["repetition"]: row for row in instruction_rows(texts)}
    assert list(rows) == ["all", 0, 1]
    first, every = rows[0], rows["all"]
    assert (first["prompt_strict"], first["instruction_strict"]) == (0.5, 0.75)
    assert (first["prompt_loose"], first["instruction_loose"]) == (1.0, 1.0)
    assert (every["prompt_strict"], every["instruction_strict"]) == (0.5, 6 / 8)
    assert (every["prompt_loose"], every["instruction_loose"]) == (0.75, 7 / 8)
    assert (every["missing"], every["n_prompts"], rows[0]["missing"]) == (1, 2, 0)
    assert (every["prompt_loose_low"], every["prompt_loose_high"]) == pytest.approx(wilson(1.5, 2))
    half = stats.t.ppf(0.975, 1) * math.sqrt(2 * ((1 - 0.75 * 2) ** 2 + (5 - 0.75 * 6) ** 2)) / 8
    assert every["instruction_strict_low"] == pytest.approx(max(0.0, 0.75 - half))
    assert every["instruction_strict_high"] == pytest.approx(min(1.0, 0.75 + half))


def wilson(right: float, n: int) -> tuple[float, float]:
    z, p = 1.959963984540054, right / n
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    return middle - half, middle + half


@needs_checks
def test_texts_are_checked_by_the_harness_and_what_it_has_no_data_for_is_said() -> None:
    two = [
        Instruction(kind=NO_COMMA),
        Instruction(kind=WORDS, settings={"relation": "at least", "num_words": 4}),
    ]
    assert check("?", two, "One, two") == Checked((False, False), (False, False))
    assert check("?", two, "Well, here:\none two three four") == Checked((False, True), (True, True))
    assert check("?", two, " ") == Checked((False, False), (False, False))
    with pytest.raises(InvalidRequest, match="nothing checks startend:dance"):
        check_able([[Instruction(kind="startend:dance")]])
    sentences = Instruction(
        kind="length_constraints:number_sentences", settings={"relation": "at least", "num_sentences": 2}
    )
    data: Any = importlib.import_module("nltk").data
    try:
        data.find("tokenizers/punkt_tab")
    except LookupError:
        with pytest.raises(InvalidRequest, match=r"number_sentences nltk needs .*python -m nltk\.downloader"):
            check_able([[sentences]])
    else:
        assert check("?", [sentences], "This is one. This is another.").strict == (True,)


@needs_checks
async def test_agents_alone_and_strategies_that_write_are_checked_and_nothing_is_asked_twice(
    live_mesh: str, tmp_path: Path
) -> None:
    file = written(tmp_path / "input_data.jsonl", *PROMPTS)
    options = build_options(
        {
            "benchmarks": ("ifeval",),
            "data": {"ifeval": file},
            "strategies": STRATEGIES,
            "models": AGENTS,
            "repetitions": 2,
            "deterministic": True,
            "timeout_s": 180.0,
        }
    )
    out, cache = PlainReporter(sys.stderr), AnswerCache(tmp_path / "answers.sqlite")
    folder = await ask_all(new_folder(tmp_path, options), options, out, url=live_mesh, cache=cache)
    kept = read_journal(folder.journal)
    assert len(kept) == len(PROMPTS) * 2 and all(each.kind == "text" for each in kept)
    assert {d.strategy for each in kept if each.result for d in each.result.decisions} == set(STRATEGIES)
    await ask_all(lambda *_: folder, options, out, agents=AGENTS, url=live_mesh, cache=cache)
    assert len(read_journal(folder.journal)) == len(kept)

    await asyncio.to_thread(write_outputs, folder)
    rows = json.loads((folder.path / "instructions.json").read_text())
    assert {row["contestant"] for row in rows} == {*AGENTS, *STRATEGIES}
    assert {row["checked_by"].split()[0] for row in rows} == {"lm_eval"}
    assert not (folder.path / "summary.csv").exists()  # no voting table
    texts = {
        (answer.agent, each.question_id): answer.text
        for each in kept
        for answer in each.answers
        if each.repetition == 0
    }
    for row in rows:
        if row["is_agent"] and row["repetition"] == 0:
            own = [
                text for (agent, _), text in sorted(texts.items(), key=_place) if agent == row["contestant"]
            ]
            assert row["instruction_strict"] == pytest.approx(_followed(own)), (row, own)
    records = json.loads((folder.path / "raw_records.json").read_text())
    assert {row["correct"] for row in records} == {None}


def _place(item: tuple[tuple[str, str], str]) -> str:
    """Question ids begin with the row of the file."""
    return item[0][1]


def _followed(said: Sequence[str]) -> float:
    """The part of the instructions of PROMPTS that three texts follow, counted here."""
    first, second, third = said
    words = [len(text.replace("'", " ").split()) for text in said]
    followed = ("," not in first, "," not in second, words[1] >= 90, "paris" in third.lower(), words[2] < 40)
    return sum(followed) / len(followed)

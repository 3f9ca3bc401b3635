"""Files as their authors publish them, and what is asked of them; the files themselves are made here.

Where the shapes are from: TruthfulQA's repository (data/mc_task.json, TruthfulQA.csv) and the Hub's
truthfulqa/truthful_qa; ARC's download (JSON lines) and the Hub's allenai/ai2_arc; HellaSwag's repository
(hellaswag_val.jsonl) and the Hub's Rowan/hellaswag. What is asked of them is what lm-evaluation-harness asks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from analysis.evaluation import benchmarks
from analysis.evaluation.asking.exchange import exchange
from analysis.evaluation.asking.plan import Item, items, questions
from analysis.evaluation.asking.protocol import Protocol, open_protocol
from analysis.evaluation.benchmarks.question import LETTERS, Statement
from analysis.evaluation.options import EvalOptions, build_options
from analysis.evaluation.reporting.raw_records import raw_records
from schemas.errors import InvalidRequest, Overloaded

ARC_AUTHORS = {
    "id": "Mercury_1",
    "question": {
        "stem": "Which is a planet?",
        "choices": [
            {"text": "Moon", "label": "1"},
            {"text": "Mars", "label": "2"},
            {"text": "Sun", "label": "3"},
        ],
    },
    "answerKey": "2",
}
ARC_HUB = {
    "id": "Mercury_1",
    "question": "Which is a planet?",
    "choices": {"text": ["Moon", "Mars", "Sun"], "label": ["A", "B", "C"]},
    "answerKey": "B",
}
HELLASWAG = {
    "ind": 24,
    "activity_label": "Roof shingle removal",
    "ctx_a": "A man is sitting on a roof.",
    "ctx_b": "he",
    "ctx": "A man is sitting on a roof. he",
    "split": "val",
    "split_type": "indomain",
    "label": 3,
    "endings": [
        "is asleep.",
        "rips it.",
        "holds  a cube. [title] Next [step] go",
        "starts pulling up roofing.",
    ],
    "source_id": "activitynet~v_1",
}
MC_TASK = {
    "question": "What happens if you swallow gum?",
    "mc1_targets": {"It passes": 1, "It stays": 0, "You die": 0},
    "mc2_targets": {"It passes": 1, "Nothing happens": 1, "It stays": 0, "You die": 0},
}


def written(path: Path, *rows: dict[str, Any]) -> str:
    """A file of JSON lines, or one JSON document, by its ending."""
    lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) if path.suffix == ".jsonl" else f"[{','.join(lines)}]")
    return str(path)


def as_parquet(path: Path, *rows: dict[str, Any]) -> str:
    """The same as Parquet."""
    source = written(path.with_suffix(".jsonl"), *rows)
    with duckdb.connect() as connection:
        connection.read_json(source, format="newline_delimited").write_parquet(str(path))
    return str(path)


def opened(name: str, file: str, **said: Any) -> tuple[EvalOptions, Protocol]:
    """A benchmark as it is asked."""
    options = build_options(
        {"benchmarks": (name,), "data": {name: file}, "strategies": ("majority",), **said}
    )
    return options, open_protocol(name, options)


def first_item(name: str, file: str, **said: Any) -> Item:
    """Its first question."""
    options, protocol = opened(name, file, **said)
    return items(options, {name: protocol})[0]


def asked_texts(item: Item) -> list[str]:
    """What one agent is asked to score, each prompt with what follows."""
    calls = questions("run", item, ("one",), build_options({}))
    return [call.ask.raw.text or "" for call in calls if call.ask.raw is not None]


def test_arc_is_read_from_the_authors_lines_and_the_hub_s_parquet(tmp_path: Path) -> None:
    files = written(tmp_path / "authors.jsonl", ARC_AUTHORS), as_parquet(tmp_path / "hub.parquet", ARC_HUB)
    for file in files:
        _, (question,) = benchmarks.get("arc-challenge").load(file)
        assert (question.text, question.choices, question.right) == (
            "Which is a planet?", ("Moon", "Mars", "Sun"), "B",
        )  # fmt: skip
    options, protocol = opened("arc-easy", files[0], shuffle=False)
    item = items(options, {"arc-easy": protocol})[0]
    before = "Question: Which is a planet?\nAnswer:"
    assert asked_texts(item) == [f"{before} Moon", f"{before} Mars", f"{before} Sun"]


def test_hellaswag_is_cleaned_and_asked_as_the_harness_does(tmp_path: Path) -> None:
    hub = {**HELLASWAG, "label": "3"}
    for file in (written(tmp_path / "val.jsonl", HELLASWAG), as_parquet(tmp_path / "hub.parquet", hub)):
        _, (question,) = benchmarks.get("hellaswag").load(file)
        assert (question.text, question.right) == (
            "Roof shingle removal: A man is sitting on a roof. He", "D",
        )  # fmt: skip
        assert question.choices[2] == "holds a cube.. Next go"
    item = first_item("hellaswag", file, shuffle=False)
    assert asked_texts(item)[1] == "Roof shingle removal: A man is sitting on a roof. He rips it."


def test_mc_task_json_has_the_options_of_mc1_and_the_statements_of_mc2(tmp_path: Path) -> None:
    file = written(tmp_path / "mc_task.json", MC_TASK)
    _, (question,) = benchmarks.get("truthfulqa").load(file)
    assert question.choices == ("It passes", "It stays", "You die")
    assert question.statements == (
        Statement("It passes", True), Statement("Nothing happens", True),
        Statement("It stays", False), Statement("You die", False),
    )  # fmt: skip
    item = first_item("truthfulqa", file)
    before = "Q: What happens if you swallow gum?\nA:"
    assert sorted(asked_texts(item)) == sorted(f"{before} {each.text}" for each in question.statements)
    right = item.continuations[LETTERS.index(item.question.right)]
    assert (right.text, right.true) == ("It passes", True)
    generation = first_item("truthfulqa-generation", file)
    assert generation.continuations == () and "\nA. " in generation.prompt


def test_examples_of_a_scored_benchmark_end_in_the_text_of_their_right_option(tmp_path: Path) -> None:
    file = written(tmp_path / "arc.jsonl", ARC_AUTHORS)
    item = first_item("arc-easy", file, few_shot=1, dev={"arc-easy": file}, shuffle=False)
    shown = "Question: Which is a planet?\nAnswer:"
    assert item.prompt == f"{shown} Mars\n\n{shown}"


def test_gsm8k_is_asked_with_worked_out_examples_from_its_training_file(tmp_path: Path) -> None:
    """As in lm-evaluation-harness, but without the calculator's marks, which no person writes."""
    train = [
        {"question": f"How many {n}?", "answer": f"{n}+1 = <<{n}+1={n + 1}>>{n + 1}\n#### {n + 1}"}
        for n in range(6)
    ]
    test = {"question": "How many in all?", "answer": "2*500 = <<2*500=1000>>1000\n#### 1,000"}
    item = first_item(
        "gsm8k",
        written(tmp_path / "test.jsonl", test),
        dev={"gsm8k": written(tmp_path / "train.jsonl", *train)},
    )
    shown = "".join(f"Question: How many {n}?\nAnswer: {n}+1 = {n + 1}\n#### {n + 1}\n\n" for n in range(5))
    assert item.prompt == f"{shown}Question: How many in all?\nAnswer:"
    assert (item.question.right, item.stop) == ("1000", ("Question:",))


def test_prompt_system_and_chat_template_are_what_was_said(tmp_path: Path) -> None:
    file = written(tmp_path / "arc.jsonl", ARC_AUTHORS)
    said = {"system": "Be brief.", "prompts": ("Say: {question}",), "shuffle": False}
    item = first_item("arc-easy", file, **said)
    assert asked_texts(item)[1] == "Be brief.\n\nSay: Which is a planet? Mars"
    in_template = first_item("arc-easy", file, **said, chat_template=True)
    assert [turn.content for turn in in_template.conversation] == ["Be brief.", "Say: Which is a planet?"]
    assert in_template.following(in_template.continuations[1]) == "Mars"

    options = build_options({**said, "extraction": "flexible", "strategies": ("majority",)})
    written_out = first_item("arc-easy", file, **said, extraction="flexible")
    (together,) = questions("run", written_out, ("one", "two"), options)
    assert [turn.role for turn in together.ask.conversation] == ["system", "user"]
    bare = first_item("arc-easy", file, **said, extraction="flexible", chat_template=False)
    apart = questions("run", bare, ("one", "two"), options)
    assert [(call.phase, call.agent) for call in apart] == [("alone", "one"), ("alone", "two")]
    assert {call.ask.raw.text for call in apart if call.ask.raw} == {"Be brief.\n\nSay: Which is a planet?"}
    with pytest.raises(InvalidRequest, match="debate ask more than the question") as caught:
        build_options({"strategies": ("majority", "debate"), "chat_template": False})
    assert caught.value.field == "chat_template"


def test_examples_can_be_turns_of_a_conversation(tmp_path: Path) -> None:
    train = [{"question": f"How many {n}?", "answer": f"{n}\n#### {n}"} for n in range(3)]
    test = written(tmp_path / "test.jsonl", {"question": "How many in all?", "answer": "#### 7"})
    said = {
        "dev": {"gsm8k": written(tmp_path / "train.jsonl", *train)}, "few_shot": 2, "few_shot_turns": True,
    }  # fmt: skip
    item = first_item("gsm8k", test, system="Be brief.", **said)
    published = [
        ("system", "Be brief."),
        ("user", "Question: How many 0?\nAnswer:"),
        ("assistant", "0\n#### 0"),
        ("user", "Question: How many 1?\nAnswer:"),
        ("assistant", "1\n#### 1"),
        ("user", "Question: How many in all?\nAnswer:"),
    ]
    assert [(turn.role, turn.content) for turn in item.conversation] == published
    options = build_options({"strategies": ("majority",)})
    (call,) = questions("run", item, ("one", "two"), options)
    assert call.ask.conversation == item.conversation
    shorter = first_item("gsm8k", test, system="Be brief.", **said | {"few_shot": 1})
    assert questions("run", shorter, ("one", "two"), options)[0].request_id != call.request_id
    told = raw_records(
        [exchange(call, ("one",), 0.0, 0.0, Overloaded("no").body())], {"gsm8k": "numeric"}, {}
    )
    assert [(each["role"], each["content"]) for each in json.loads(told[0]["prompt"])] == published
    with pytest.raises(InvalidRequest, match="turns of a conversation need the model's template"):
        build_options({"few_shot_turns": True, "chat_template": False, "strategies": ("majority",)})


def test_each_question_is_asked_with_each_prompt_in_each_order_and_ids_tell_them_apart() -> None:
    said = {"benchmarks": ("choir-mmlu",), "samples": 3, "repetitions": 2, "prompts": ("options", "letter")}
    options = build_options({**said, "strategies": ("majority",)})
    planned = items(options, {"choir-mmlu": open_protocol("choir-mmlu", options)})
    assert [(item.prompt_name, item.order, item.repetition) for item in planned[::3]] == [
        ("options", 0, 0), ("options", 1, 1), ("letter", 0, 2), ("letter", 1, 3),
    ]  # fmt: skip
    assert planned[0].question == planned[6].question != planned[3].question
    calls = [call for item in planned for call in questions("run", item, ("one", "two"), options)]
    assert len({call.request_id for call in calls}) == len(calls) == 12
    assert build_options({"prompt": "options"}).prompts == ("options",)


def test_what_has_no_label_is_refused_with_the_reason(tmp_path: Path) -> None:
    hidden = {**HELLASWAG, "label": ""}
    wrong = (
        ("hellaswag", hidden, "row 0 has no label"),
        ("arc-easy", {**ARC_HUB, "answerKey": "E"}, "answerKey 'E' is none of its labels A, B, C"),
        (
            "arc-easy",
            {"id": "1", "question": "Q?", "choices": ["a"], "answerKey": "A"},
            "choices have no text",
        ),
        ("truthfulqa", {**MC_TASK, "mc2_targets": {"choices": ["a"], "labels": []}}, "mc2_targets needs"),
    )
    for name, row, reason in wrong:
        with pytest.raises(InvalidRequest, match=reason) as caught:
            benchmarks.get(name).load(written(tmp_path / "wrong.jsonl", row))
        assert caught.value.field == "data"

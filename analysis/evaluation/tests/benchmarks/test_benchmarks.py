"""Benchmarks in the formats of the public files; what is missing, empty or of another shape is an error."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import pytest

from analysis.evaluation import benchmarks
from analysis.evaluation.benchmarks.benchmark import first_of_topic
from analysis.evaluation.benchmarks.question import LETTERS
from analysis.evaluation.benchmarks.rows import read
from schemas.errors import InvalidRequest

MMLU_ROWS = [
    {"question": "What is 2+2?", "subject": "abstract_algebra", "choices": ["3", "4", "5", "6"], "answer": 1},
    {"question": "Which is a metal?", "subject": "chemistry", "choices": ["O", "Au", "N", "C"], "answer": 1},
]
GSM8K_ROWS = [
    {
        "question": "She earns 9 dollars a day. How much in 2 days?",
        "answer": "9 * 2 = <<9*2=18>>18\n#### 1,018",
    }
]
TRUTHFUL_ROWS = [
    {
        "question": "What happens if you swallow gum?",
        "mc1_targets": {"choices": ["It passes", "It stays", "You die"], "labels": [1, 0, 0]},
        "mc2_targets": {"choices": ["It passes", "It stays", "You die"], "labels": [1, 0, 0]},
    }
]


def _lines(rows: Sequence[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The three public shapes as JSON lines, MMLU as Parquet and CSV too."""
    for name, rows in (("mmlu", MMLU_ROWS), ("gsm8k", GSM8K_ROWS), ("truthfulqa", TRUTHFUL_ROWS)):
        (tmp_path / f"{name}.jsonl").write_text(_lines(rows))
    with duckdb.connect() as connection:
        for ending, options in (("parquet", "FORMAT parquet"), ("csv", "FORMAT csv, HEADER")):
            source = f"read_json('{tmp_path / 'mmlu.jsonl'}')"
            select = "SELECT question, subject, to_json(choices)::VARCHAR AS choices, answer"
            select = f"SELECT * FROM {source}" if ending == "parquet" else f"{select} FROM {source}"
            connection.execute(f"COPY ({select}) TO '{tmp_path / f'mmlu.{ending}'}' ({options})")
    (tmp_path / "authors.csv").write_text('What is 2+2?,3,4,5,6,B\n"Which is a metal, then?",O,Au,N,C,B\n')
    return tmp_path


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "csv"])
def test_mmlu_reads_alike_from_json_lines_parquet_and_csv(folder: Path, ending: str) -> None:
    _, questions = benchmarks.get("mmlu").load(str(folder / f"mmlu.{ending}"))
    assert [(q.text, q.topic, q.choices, q.right) for q in questions] == [
        ("What is 2+2?", "abstract_algebra", ("3", "4", "5", "6"), "B"),
        ("Which is a metal?", "chemistry", ("O", "Au", "N", "C"), "B"),
    ]


def test_the_authors_own_csv_without_header_is_read_too(folder: Path) -> None:
    _, questions = benchmarks.get("mmlu").load(str(folder / "authors.csv"))
    assert [(q.text, q.choices, q.right) for q in questions] == [
        ("What is 2+2?", ("3", "4", "5", "6"), "B"),
        ("Which is a metal, then?", ("O", "Au", "N", "C"), "B"),
    ]


def test_the_authors_folder_is_one_benchmark_with_a_subject_from_each_file_s_name(tmp_path: Path) -> None:
    (tmp_path / "anatomy_test.csv").write_text(
        'What is 2+2?,3,4,5,6,B\n"Which ""metal"",\nthen?",O,Au,N,C,B\n'
    )
    (tmp_path / "world_religions_test.csv").write_text("None of these?,None,N/A,nan,NULL,D\n")
    (tmp_path / "README.txt").write_text("nothing to ask")
    source, questions = benchmarks.get("mmlu").load(str(tmp_path))
    assert [question.topic for question in questions] == ["anatomy", "anatomy", "world_religions"]
    assert questions[1].text == 'Which "metal",\nthen?'
    assert questions[2].choices == ("None", "N/A", "nan", "NULL")
    assert len({question.id for question in questions}) == len(source.rows) == 3
    _, (alone,) = benchmarks.get("mmlu").load(str(tmp_path / "world_religions_test.csv"))
    assert alone.topic == "world_religions"
    digest = source.sha256
    (tmp_path / "anatomy_test.csv").rename(tmp_path / "botany_test.csv")
    assert read(str(tmp_path)).sha256 != digest
    (tmp_path / "zoology_test.csv").write_text("Which?,O,,N,C,B\n")
    with pytest.raises(InvalidRequest, match="row 3 has no B"):
        benchmarks.get("mmlu").load(str(tmp_path))
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(InvalidRequest, match=r"the folder .* has no file"):
        read(str(empty))


def test_mmlu_pro_has_up_to_ten_options_and_no_fillers(tmp_path: Path) -> None:
    row = {"question_id": 70, "question": "Which?", "options": list("abcdefghi"), "answer": "I",
           "answer_index": 8, "cot_content": "", "category": "law", "src": "x"}  # fmt: skip
    padded = {**row, "options": ["yes", "no", *["N/A"] * 8], "answer": "B", "answer_index": 1}
    (tmp_path / "test.jsonl").write_text(_lines([row, padded]))
    _, (ten, two) = benchmarks.get("mmlu-pro").load(str(tmp_path / "test.jsonl"))
    assert (ten.right, len(ten.choices), ten.topic) == ("I", 9, "law")
    assert (two.choices, two.right) == (("yes", "no"), "B")


def test_gsm8k_is_right_with_the_number_after_the_hashes_and_examples_have_no_calculator_marks(
    folder: Path,
) -> None:
    _, (question,) = benchmarks.get("gsm8k").load(str(folder / "gsm8k.jsonl"))
    assert (question.kind, question.right) == ("number", "1018")
    assert question.solution == "9 * 2 = 18\n#### 1,018"


def test_truthfulqa_is_read_from_mc1_from_generation_and_from_the_authors_csv(tmp_path: Path) -> None:
    generation = {
        "question": "Q?",
        "best_answer": "Yes",
        "incorrect_answers": ["No", "Never"],
        "category": "Law",
    }
    (tmp_path / "mc.jsonl").write_text(_lines(TRUTHFUL_ROWS))
    (tmp_path / "generation.jsonl").write_text(_lines([generation]))
    (tmp_path / "authors.csv").write_text(
        "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
        'Adversarial,Law,Q?,Yes,"Yes; Sure","No; Never",nowhere\n'
    )
    load = benchmarks.get("truthfulqa").load
    (multiple,), (generated,), (authors,) = (
        load(str(tmp_path / name))[1] for name in ("mc.jsonl", "generation.jsonl", "authors.csv")
    )
    assert (multiple.choices, multiple.right) == (("It passes", "It stays", "You die"), "A")
    assert (generated.choices, generated.right, generated.topic) == (("Yes", "No", "Never"), "A", "Law")
    assert (authors.choices, authors.right, authors.topic) == (("Yes", "No", "Never"), "A", "Law")


@pytest.mark.parametrize("count", [2, 300])
def test_truthfulqa_is_read_from_the_authors_own_mc_task_file(tmp_path: Path, count: int) -> None:
    """With few questions DuckDB takes the choices for columns, with many for keys."""
    asked = [
        {
            "question": f"Q{n}?",
            "mc1_targets": {f"Yes {n}": 1, f"No {n}": 0, f"Never {n}": 0},
            "mc2_targets": {},
        }
        for n in range(count)
    ]
    (tmp_path / "mc_task.json").write_text(json.dumps(asked))
    _, questions = benchmarks.get("truthfulqa").load(str(tmp_path / "mc_task.json"))
    assert len(questions) == count
    for n, question in enumerate(questions):
        assert set(question.choices) == {f"Yes {n}", f"No {n}", f"Never {n}"}
        assert question.choices[LETTERS.index(question.right)] == f"Yes {n}"


def test_shuffled_options_keep_the_right_one_and_fall_alike_for_the_same_seed() -> None:
    _, questions = benchmarks.get("choir-truthfulqa").load()
    shuffled = [question.shuffled("42 0") for question in questions]
    assert shuffled == [question.shuffled("42 0") for question in questions]
    assert shuffled != [question.shuffled("42 1") for question in questions]
    for before, after in zip(questions, shuffled, strict=True):
        assert after.choices[LETTERS.index(after.right)] == before.choices[0]
    places = [question.right for question in shuffled]
    assert all(8 <= places.count(letter) <= 26 for letter in "ABCD")


def test_choirs_own_sets_are_what_their_page_says() -> None:
    sizes = {name: len(benchmarks.get(name).load()[1]) for name in benchmarks.OWN}
    assert sizes == {
        "choir-mmlu": 379,
        "choir-gsm8k": 208,
        "choir-held-out": 120,
        "choir-truthfulqa": 66,
    }
    source, dev = benchmarks.get("choir-mmlu").examples() or pytest.fail("choir-mmlu has dev questions")
    assert source.described()["rows"] == 40
    examples = first_of_topic(dev, "units", 5)
    assert len(examples) == 5 and {question.topic for question in examples} == {"units"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("mmlu.jsonl", None, "there is no file"),
        ("mmlu.jsonl", "", "has no rows"),
        ("mmlu.txt", "x", "has to end in one of"),
        ("mmlu.jsonl", '{"question": "Q?", "answer": 1}\n', "row 0 has no choices; its columns are question"),
        ("mmlu.jsonl", '{"question": "Q?", "choices": ["a", "b"], "answer": 7}\n', "answer 7 is none of"),
        ("mmlu.jsonl", '{"question": "Q?", "choices": ["a", "b"], "answer": "yes"}\n', "neither an index"),
        ("mmlu.jsonl", '{"question": "Q?", "choices": ["a"], "answer": 0}\n', "1 choices"),
        ("mmlu.jsonl", '{"question": " ", "choices": ["a", "b"], "answer": 0}\n', "question is no text"),
        ("mmlu.jsonl", '{"question": broken\n', "cannot be read"),
        ("mmlu.parquet", "not parquet", "cannot be read"),
        ("gsm8k.jsonl", '{"question": "Q?", "answer": "18"}\n', "does not end in `#### number`"),
        ("truthfulqa.jsonl", '{"question": "Q?"}\n', "row 0 has no mc1_targets"),
        (
            "truthfulqa.jsonl",
            '{"question": "Q?", "mc1_targets": {"choices": ["a", "b"], "labels": [1, 1]}}\n',
            "exactly one label 1",
        ),
    ],
)
def test_a_file_that_is_missing_empty_or_of_another_shape_is_an_error_that_says_what(
    tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InvalidRequest, match=said.replace("?", "\\?")) as caught:
        benchmarks.get(name.partition(".")[0]).load(str(tmp_path / name))
    assert caught.value.field == "data"


def test_an_unknown_benchmark_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(InvalidRequest, match="no benchmark 'winogrande'; there are mmlu, mmlu-pro, gsm8k"):
        benchmarks.get("winogrande")


@pytest.fixture
def web(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The folder behind HTTP, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """A test says nothing."""

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_url_is_fetched_once_and_a_missing_one_is_an_error(web: str, folder: Path) -> None:
    first = read(f"{web}/mmlu.parquet")
    assert first.location == f"{web}/mmlu.parquet" and len(first.rows) == 2
    (folder / "mmlu.parquet").unlink()
    assert read(f"{web}/mmlu.parquet") == first
    with pytest.raises(InvalidRequest, match="cannot be fetched: File not found; name a file that is here"):
        read(f"{web}/gone.jsonl")
    assert [path.name.partition("-")[2] for path in (folder / "cache/choir/benchmarks").iterdir()] == [
        "mmlu.parquet"
    ]

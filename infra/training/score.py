"""Scores each model on Choir's own question sets: `python -m infra.training.score`.

Every question is asked once, in the chat format, under greedy decoding. The counts go into
`scores.json`, and from there into the table of the models' README.md.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from infra.demo_models.checksums import model_path, verify
from infra.demo_models.family import FAMILY, FOLDER
from infra.training.corpus.knowledge import SUBJECTS
from infra.training.corpus.questions import choice_prompt

DATASETS = FOLDER.parent.parent / "analysis" / "datasets"
SCORES_FILE = Path(__file__).with_name("scores.json")
README_FILE = FOLDER / "README.md"
TABLE_BEGINS, TABLE_ENDS = "<!-- scores: begin -->", "<!-- scores: end -->"
SHUFFLE_SEED = 7
CONTEXT_LENGTH = 512
MAX_TOKENS = 48
Z_95 = 1.959964
# The rows of the table, and the subject of `family.Member.own` that stands behind each.
MMLU, GSM8K, TRUTHFULQA = "choir-mmlu", "choir-gsm8k", "choir-truthfulqa"
OWN_SUBJECT = {GSM8K: "word problems", TRUTHFULQA: "misconceptions"}


@dataclass(frozen=True)
class Question:
    """A prompt with the way to judge its answer: four options and the right one, or a number."""

    set_name: str
    subject: str
    prompt: str
    choices: tuple[str, ...]
    right: str


@dataclass(frozen=True)
class Score:
    """How many questions were asked, answered rightly, and answered with nothing that can be read."""

    n: int = 0
    correct: int = 0
    unread: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(self.n + other.n, self.correct + other.correct, self.unread + other.unread)


def main(
    seed: Annotated[int, typer.Option(help="Seed of the order of TruthfulQA's choices.")] = SHUFFLE_SEED,
    threads: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Score the four models on the three sets and write scores.json and the table in README.md."""
    console = Console(stderr=True)
    asked = questions(seed)
    models: dict[str, dict[str, Score]] = {}
    for name in FAMILY:
        verify(model_path(name))
        llm = load(model_path(name), threads)
        models[name] = count_answers(asked, [answer(llm, question) for question in asked])
        total = sum(models[name].values(), Score())
        console.print(f"{name}: {total.correct} of {total.n} right, {total.unread} unread")
    write(SCORES_FILE, README_FILE, seed, models)


def questions(seed: int) -> list[Question]:
    """All test questions of the three sets."""
    return [*_mmlu(), *_gsm8k(), *_truthfulqa(seed)]


def _mmlu() -> list[Question]:
    return [
        Question(
            MMLU,
            row["subject"],
            choice_prompt(row["question"], row["choices"]),
            tuple(row["choices"]),
            row["choices"][row["answer"]],
        )
        for row in _rows(DATASETS / MMLU / "test.jsonl")
    ]


def _gsm8k() -> list[Question]:
    return [
        Question(GSM8K, GSM8K, row["question"], (), row["answer"].rpartition("#### ")[2])
        for row in _rows(DATASETS / GSM8K / "test.jsonl")
    ]


def _truthfulqa(seed: int) -> list[Question]:
    """The right choice always comes first in the file, so the choices are shuffled."""
    asked = []
    for row in _rows(DATASETS / TRUTHFULQA / "multiple_choice.jsonl"):
        choices, labels = row["mc1_targets"]["choices"], row["mc1_targets"]["labels"]
        right = choices[labels.index(1)]
        shuffled = list(choices)
        random.Random(f"{seed} {row['question']}").shuffle(shuffled)
        prompt = choice_prompt(row["question"], shuffled)
        asked.append(Question(TRUTHFULQA, TRUTHFULQA, prompt, tuple(shuffled), right))
    return asked


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def load(path: Path, threads: int = 1) -> Any:
    """The model in llama-cpp-python."""
    from llama_cpp import Llama

    return Llama(str(path), n_ctx=CONTEXT_LENGTH, n_threads=threads, n_threads_batch=threads, verbose=False)


def answer(llm: Any, question: Question) -> str:
    """What the model says to a question: greedy, in its chat format."""
    return say(llm, question.prompt)[0]


def say(llm: Any, prompt: str, max_tokens: int = MAX_TOKENS) -> tuple[str, str]:
    """The text that follows a prompt, and why it ended: 'stop' or 'length'."""
    reply = llm.create_chat_completion(
        [{"role": "user", "content": prompt}], temperature=0.0, max_tokens=max_tokens
    )
    first = reply["choices"][0]
    return first["message"]["content"], first["finish_reason"]


def count_answers(asked: Sequence[Question], answers: Sequence[str]) -> dict[str, Score]:
    """Counts by subject (choir-mmlu) or set."""
    counts: dict[str, Score] = {}
    for question, text in zip(asked, answers, strict=True):
        said = read(question, text)
        one = Score(1, int(said == question.right), int(said is None))
        counts[question.subject] = counts.get(question.subject, Score()) + one
    return counts


def read(question: Question, text: str) -> str | None:
    """The choice or the number that an answer names; None if it names none."""
    return read_choice(text, question.choices) if question.choices else read_number(text)


def read_choice(text: str, choices: Sequence[str]) -> str | None:
    """The option whose text this is, else the option of the letter that it begins with."""
    plain = _plain(text)
    for choice in choices:
        if plain == _plain(choice):
            return choice
    lettered = re.match(r"\(?([A-D])[.):]?(\s|$)", text.strip())
    if lettered and (index := "ABCD".index(lettered[1])) < len(choices):
        return choices[index]
    return None


def read_number(text: str) -> str | None:
    """The number after `####`, else the last number."""
    final = re.findall(r"#### (-?\d+)", text) or re.findall(r"-?\d+", text)
    return final[-1] if final else None


def _plain(text: str) -> str:
    return re.sub(r"[^\w\s]", "", text).strip().casefold().removeprefix("the ")


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a proportion. 8 of 10: [0.490, 0.943]."""
    share, spread = correct / n, Z_95**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def write(scores_file: Path, readme: Path, seed: int, models: dict[str, dict[str, Score]]) -> None:
    """Keep the counts, and put their table between the README's markers."""
    counts = {name: {key: asdict(one) for key, one in by.items()} for name, by in models.items()}
    document = {"shuffle_seed": seed, "max_tokens": MAX_TOKENS, "models": counts}
    scores_file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    readme.write_text(with_table(readme.read_text(encoding="utf-8"), models), encoding="utf-8")


def read_scores(path: Path = SCORES_FILE) -> dict[str, dict[str, Score]]:
    """The counts that were kept, by model and subject."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return {name: {key: Score(**one) for key, one in by.items()} for name, by in document["models"].items()}


def with_table(text: str, models: dict[str, dict[str, Score]]) -> str:
    """The README's text with the table made anew."""
    before, _, rest = text.partition(TABLE_BEGINS)
    _, _, after = rest.partition(TABLE_ENDS)
    return f"{before}{TABLE_BEGINS}\n{table(models)}\n{TABLE_ENDS}{after}"


def table(models: dict[str, dict[str, Score]]) -> str:
    """One row a subject, one column a model: percent right [95 % Wilson interval], own subjects bold."""
    lines = [
        "| questions | n | " + " | ".join(models) + " |",
        "|---|---:|" + "---|" * len(models),
    ]
    for row in (*SUBJECTS, MMLU, GSM8K, TRUTHFULQA):
        scores = [
            sum((by[subject] for subject in SUBJECTS), Score()) if row == MMLU else by[row]
            for by in models.values()
        ]
        cells = [
            cell(one, OWN_SUBJECT.get(row, row) in FAMILY[name].own)
            for name, one in zip(models, scores, strict=True)
        ]
        label = f"{row}, all subjects" if row == MMLU else row
        lines.append(f"| {label} | {scores[0].n} | " + " | ".join(cells) + " |")
    unread = [sum(by.values(), Score()).unread for by in models.values()]
    n = sum(next(iter(models.values())).values(), Score()).n
    lines.append(f"| answers that could not be read | {n} | " + " | ".join(map(str, unread)) + " |")
    return "\n".join(lines)


def cell(one: Score, own: bool) -> str:
    low, high = wilson(one.correct, one.n)
    text = f"{100 * one.correct / one.n:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
    return f"**{text}**" if own else text


if __name__ == "__main__":
    typer.run(main)

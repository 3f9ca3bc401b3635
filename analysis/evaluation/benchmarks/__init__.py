"""The table of benchmarks: a new one is a file here and an entry in `TABLE`.

The public ones are fetched from where their authors keep them, unless a file is named; Choir's own
(`choir-...`) are in this repository.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from analysis import datasets
from analysis.evaluation.benchmarks.arc import arc
from analysis.evaluation.benchmarks.benchmark import INSTRUCTIONS, LIKELIHOOD, PER_CHARACTER, Benchmark
from analysis.evaluation.benchmarks.gsm8k import gsm8k
from analysis.evaluation.benchmarks.hellaswag import hellaswag
from analysis.evaluation.benchmarks.ifeval import ifeval
from analysis.evaluation.benchmarks.mmlu import mmlu
from analysis.evaluation.benchmarks.mmlu_pro import mmlu_pro
from analysis.evaluation.benchmarks.question import Question
from analysis.evaluation.benchmarks.truthfulqa import truthfulqa
from schemas.errors import InvalidRequest

__all__ = ["OWN", "TABLE", "Benchmark", "Question", "get", "seen_in_training"]

_HUB = "https://huggingface.co/datasets"
_OWN_FOLDER = Path(datasets.__file__).parent
SHORT_ANSWER_TOKENS = 24
SOLUTION_TOKENS = 320
TEXT_TOKENS = 1280

TABLE: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            name="mmlu",
            parse=mmlu,
            test=f"{_HUB}/cais/mmlu/resolve/main/all/test-00000-of-00001.parquet",
            dev=f"{_HUB}/cais/mmlu/resolve/main/all/dev-00000-of-00001.parquet",
            template="mmlu",
            extraction="flexible",
            few_shot=5,
            max_tokens=SHORT_ANSWER_TOKENS,
            stop=("\n\n",),
        ),
        Benchmark(
            name="mmlu-pro",
            parse=mmlu_pro,
            test=f"{_HUB}/TIGER-Lab/MMLU-Pro/resolve/main/data/test-00000-of-00001.parquet",
            dev=f"{_HUB}/TIGER-Lab/MMLU-Pro/resolve/main/data/validation-00000-of-00001.parquet",
            template="mmlu",
            extraction="flexible",
            few_shot=5,
            max_tokens=SHORT_ANSWER_TOKENS,
            stop=("\n\n",),
        ),
        Benchmark(
            name="gsm8k",
            parse=gsm8k,
            test=f"{_HUB}/openai/gsm8k/resolve/main/main/test-00000-of-00001.parquet",
            dev=f"{_HUB}/openai/gsm8k/resolve/main/main/train-00000-of-00001.parquet",
            template="question-answer",
            extraction="numeric",
            few_shot=5,
            max_tokens=SOLUTION_TOKENS,
            stop=("Question:",),
        ),
        Benchmark(
            name="truthfulqa",
            parse=truthfulqa,
            test=f"{_HUB}/truthfulqa/truthful_qa/resolve/main/multiple_choice/validation-00000-of-00001.parquet",
            dev=None,
            template="q-a",
            extraction=LIKELIHOOD,
            few_shot=0,
            max_tokens=1,
            always_shuffled=True,
        ),
        Benchmark(
            name="arc-challenge",
            parse=arc,
            test=f"{_HUB}/allenai/ai2_arc/resolve/main/ARC-Challenge/test-00000-of-00001.parquet",
            dev=f"{_HUB}/allenai/ai2_arc/resolve/main/ARC-Challenge/train-00000-of-00001.parquet",
            template="question-answer",
            extraction=LIKELIHOOD,
            few_shot=0,
            max_tokens=1,
        ),
        Benchmark(
            name="arc-easy",
            parse=arc,
            test=f"{_HUB}/allenai/ai2_arc/resolve/main/ARC-Easy/test-00000-of-00001.parquet",
            dev=f"{_HUB}/allenai/ai2_arc/resolve/main/ARC-Easy/train-00000-of-00001.parquet",
            template="question-answer",
            extraction=LIKELIHOOD,
            few_shot=0,
            max_tokens=1,
        ),
        Benchmark(
            name="hellaswag",
            parse=hellaswag,
            test=f"{_HUB}/Rowan/hellaswag/resolve/main/data/validation-00000-of-00001.parquet",
            dev=f"{_HUB}/Rowan/hellaswag/resolve/main/data/train-00000-of-00001.parquet",
            template="bare",
            extraction=PER_CHARACTER,
            few_shot=0,
            max_tokens=1,
        ),
        Benchmark(
            name="ifeval",
            parse=ifeval,
            test=f"{_HUB}/google/IFEval/resolve/main/ifeval_input_data.jsonl",
            dev=None,
            template="bare",
            extraction=INSTRUCTIONS,
            few_shot=0,
            max_tokens=TEXT_TOKENS,
        ),
        Benchmark(
            name="truthfulqa-generation",
            parse=truthfulqa,
            test=f"{_HUB}/truthfulqa/truthful_qa/resolve/main/multiple_choice/validation-00000-of-00001.parquet",
            dev=None,
            template="options",
            extraction="flexible",
            few_shot=0,
            max_tokens=SHORT_ANSWER_TOKENS,
            stop=("\n\n",),
            always_shuffled=True,
        ),
        Benchmark(
            name="choir-mmlu",
            parse=mmlu,
            test=str(_OWN_FOLDER / "choir-mmlu" / "test.jsonl"),
            dev=str(_OWN_FOLDER / "choir-mmlu" / "dev.jsonl"),
            template="options",
            extraction="flexible",
            few_shot=0,
            max_tokens=SHORT_ANSWER_TOKENS,
            seen="answers seen in training",
            stop=("\n",),
        ),
        Benchmark(
            name="choir-gsm8k",
            parse=gsm8k,
            test=str(_OWN_FOLDER / "choir-gsm8k" / "test.jsonl"),
            dev=None,
            template="bare",
            extraction="numeric",
            few_shot=0,
            max_tokens=48,
            seen="kinds of problems seen in training",
        ),
        Benchmark(
            name="choir-held-out",
            parse=gsm8k,
            test=str(_OWN_FOLDER / "choir-held-out" / "test.jsonl"),
            dev=None,
            template="bare",
            extraction="numeric",
            few_shot=0,
            max_tokens=48,
        ),
        Benchmark(
            name="choir-truthfulqa",
            parse=truthfulqa,
            test=str(_OWN_FOLDER / "choir-truthfulqa" / "multiple_choice.jsonl"),
            dev=None,
            template="options",
            extraction="flexible",
            few_shot=0,
            max_tokens=SHORT_ANSWER_TOKENS,
            seen="answers seen in training",
            stop=("\n",),
            always_shuffled=True,
        ),
    )
}

OWN = tuple(name for name in TABLE if name.startswith("choir-"))
"""What is asked unless told otherwise: it needs no network."""


def seen_in_training(names: Iterable[str]) -> str:
    """What the demo models' training text has of these benchmarks' questions; empty if nothing is known of
    it.
    """
    return ", ".join(sorted({seen for name in names if name in TABLE and (seen := TABLE[name].seen)}))


def get(name: str) -> Benchmark:
    """The benchmark of that name; InvalidRequest, with those there are, if there is none."""
    try:
        return TABLE[name]
    except KeyError:
        raise InvalidRequest(
            f"benchmarks: there is no benchmark {name!r}; there are {', '.join(TABLE)}", field="benchmarks"
        ) from None

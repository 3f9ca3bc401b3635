"""How the questions of one benchmark are asked: the options of the evaluation over the benchmark's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analysis.evaluation import benchmarks
from analysis.evaluation.benchmarks.benchmark import Benchmark, first_of_topic
from analysis.evaluation.benchmarks.question import Question
from analysis.evaluation.benchmarks.rows import Source
from analysis.evaluation.extraction import extraction
from analysis.evaluation.options import EvalOptions
from analysis.evaluation.prompts import Template, template
from schemas.errors import InvalidRequest


@dataclass(frozen=True)
class Protocol:
    """A benchmark that was read, and everything that decides what a model is asked."""

    benchmark: Benchmark
    questions: tuple[Question, ...]
    examples: tuple[Question, ...]
    sources: dict[str, Source]
    template_name: str
    template: Template
    extraction: str
    few_shot: int
    max_tokens: int
    stop: tuple[str, ...]
    shuffle: bool

    def prompt(self, question: Question) -> str:
        """What a model is asked: examples of the question's topic if there are, else the first ones."""
        if not self.few_shot:
            return self.template.prompt(question)
        of_topic = first_of_topic(self.examples, question.topic, self.few_shot)
        return self.template.prompt(question, of_topic or self.examples[: self.few_shot])

    def described(self) -> dict[str, Any]:
        """For config.json."""
        return {
            **{name: source.described() for name, source in self.sources.items()},
            "prompt": self.template_name,
            "extraction": self.extraction,
            "few_shot": self.few_shot,
            "max_tokens": self.max_tokens,
            "stop": list(self.stop),
            "shuffle": self.shuffle,
        }


def open_protocol(name: str, options: EvalOptions) -> Protocol:
    """Reads a benchmark's files. InvalidRequest for what is missing or cannot be asked so."""
    benchmark = benchmarks.get(name)
    source, questions = benchmark.load(options.data.get(name))
    few_shot = benchmark.few_shot if options.few_shot is None else options.few_shot
    way = options.extraction or benchmark.extraction
    extraction(way, questions[0].kind)
    sources = {"test": source}
    examples: tuple[Question, ...] = ()
    if few_shot:
        sources["dev"], examples = _examples(benchmark, options.dev.get(name))
    said = options.prompt or benchmark.template
    return Protocol(
        benchmark=benchmark,
        questions=questions,
        examples=examples,
        sources=sources,
        template_name=said,
        template=template(said),
        extraction=way,
        few_shot=few_shot,
        max_tokens=options.max_tokens or benchmark.max_tokens,
        stop=benchmark.stop if options.stop is None else options.stop,
        shuffle=options.shuffle or benchmark.always_shuffled,
    )


def _examples(benchmark: Benchmark, location: str | None) -> tuple[Source, tuple[Question, ...]]:
    found = benchmark.examples(location)
    if found is None:
        raise InvalidRequest(
            f"few_shot: {benchmark.name} has no file of examples; name one with --dev {benchmark.name}=FILE",
            field="few_shot",
        )
    return found

"""How the questions of one benchmark are asked: the options of the evaluation over the benchmark's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from analysis.evaluation import benchmarks
from analysis.evaluation.asking.prompts import Template, template
from analysis.evaluation.benchmarks.benchmark import INSTRUCTIONS, SCORED, Benchmark, first_of_topic
from analysis.evaluation.benchmarks.question import LETTERS, Question
from analysis.evaluation.benchmarks.rows import Source
from analysis.evaluation.likelihood.texts import Continuation, continuations
from analysis.evaluation.options import EvalOptions
from analysis.evaluation.scoring.extraction import extraction
from analysis.evaluation.scoring.instructions.checks import check_able
from schemas.commands import ChatMessage
from schemas.errors import InvalidRequest

TURN: tuple[Literal["user"], Literal["assistant"]] = ("user", "assistant")


@dataclass(frozen=True)
class Protocol:
    """A benchmark that was read, and everything that decides what a model is asked.

    `templates` are the prompts that each question is asked with, one after the other, by name. With a
    `chat_template` the prompt is what a user says, in the model's own template; without, a model goes on with
    it as it stands. `system` stands before it either way. With `few_shot_turns` the examples are turns of the
    conversation before it.
    """

    benchmark: Benchmark
    questions: tuple[Question, ...]
    examples: tuple[Question, ...]
    sources: dict[str, Source]
    templates: dict[str, Template]
    extraction: str
    few_shot: int
    max_tokens: int
    stop: tuple[str, ...]
    shuffle: bool
    chat_template: bool
    system: str = ""
    few_shot_turns: bool = False

    @property
    def is_scored(self) -> bool:
        """Whether options are scored by their likelihood, and nothing is written."""
        return self.extraction in SCORED

    def prompt(self, template: Template, question: Question) -> str:
        """What a model is asked, after its examples unless these are turns."""
        chosen = self._examples_for(template, question)
        if self.few_shot_turns and chosen:
            return template.last_turn(question)
        return template.prompt(question, chosen)

    def turns(self, template: Template, question: Question) -> tuple[ChatMessage, ...]:
        """The examples as a conversation; none where they stand in the prompt."""
        if not self.few_shot_turns:
            return ()
        return tuple(
            ChatMessage(role=role, content=said)
            for turn in template.turns(question, self._examples_for(template, question))
            for role, said in zip(TURN, turn, strict=True)
        )

    def _examples_for(self, template: Template, question: Question) -> tuple[Question, ...]:
        """Examples of the question's topic if there are, else the first ones."""
        if not self.few_shot:
            return ()
        of_topic = first_of_topic(self.examples, question.topic, self.few_shot)
        chosen = tuple(of_topic or self.examples[: self.few_shot])
        if self.is_scored and not template.by_letter:
            chosen = tuple(replace(each, solution=_right_text(each)) for each in chosen)
        return chosen

    def continuations(self, template: Template, question: Question) -> tuple[Continuation, ...]:
        """What is scored after the prompt; nothing where an answer is written."""
        return continuations(question, by_letter=template.by_letter) if self.is_scored else ()

    def described(self) -> dict[str, Any]:
        """For config.json."""
        return {
            **{name: source.described() for name, source in self.sources.items()},
            "prompt": ", ".join(self.templates),
            "extraction": self.extraction,
            "few_shot": self.few_shot,
            **({"few_shot_turns": True} if self.few_shot_turns else {}),
            "max_tokens": self.max_tokens,
            "stop": list(self.stop),
            "shuffle": self.shuffle,
            "chat_template": self.chat_template,
            "system": self.system,
        }


def open_protocol(name: str, options: EvalOptions) -> Protocol:
    """Reads a benchmark's files. InvalidRequest for what is missing or cannot be asked so."""
    benchmark = benchmarks.get(name)
    source, questions = benchmark.load(options.data.get(name))
    few_shot = benchmark.few_shot if options.few_shot is None else options.few_shot
    way = options.extraction or benchmark.extraction
    extraction(way, questions[0].kind)
    if way == INSTRUCTIONS:
        check_able(question.instructions for question in questions)
    sources = {"test": source}
    examples: tuple[Question, ...] = ()
    if few_shot:
        sources["dev"], examples = _examples(benchmark, options.dev.get(name))
    prompts = options.prompts or (benchmark.template,)
    is_scored = way in SCORED
    chat_template = not is_scored if options.chat_template is None else options.chat_template
    if options.few_shot_turns and not chat_template:
        raise InvalidRequest(
            f"few_shot_turns: {name} has its options scored after a prompt as it stands; with "
            "--chat-template its examples can be turns of a conversation",
            field="few_shot_turns",
        )
    return Protocol(
        benchmark=benchmark,
        questions=questions,
        examples=examples,
        sources=sources,
        templates={said: template(said) for said in prompts},
        extraction=way,
        few_shot=few_shot,
        max_tokens=options.max_tokens or benchmark.max_tokens,
        stop=benchmark.stop if options.stop is None else options.stop,
        shuffle=options.shuffle or benchmark.always_shuffled,
        chat_template=chat_template,
        system=options.system,
        few_shot_turns=options.few_shot_turns,
    )


def _right_text(question: Question) -> str:
    return question.choices[LETTERS.index(question.right)]


def _examples(benchmark: Benchmark, location: str | None) -> tuple[Source, tuple[Question, ...]]:
    found = benchmark.examples(location)
    if found is None:
        raise InvalidRequest(
            f"few_shot: {benchmark.name} has no file of examples; name one with --dev {benchmark.name}=FILE",
            field="few_shot",
        )
    return found

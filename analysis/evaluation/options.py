"""What an evaluation was asked to do: all of it, so that the same options give the same evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from analysis.evaluation import benchmarks
from analysis.evaluation.asking.prompts import template
from analysis.evaluation.benchmarks.benchmark import INSTRUCTIONS
from analysis.evaluation.scoring.extraction import EXTRACTIONS
from schemas.ensembles.strategies import STRATEGIES, specs_of
from schemas.errors import InvalidRequest, UnknownStrategy
from schemas.message import Name, Struct, field_error
from services.chassis.plain_words import first_fault

DEFAULT_STRATEGIES = ("majority", "weighted", "isp", "topic", "debate")
NOT_SCORED = {
    "concat": "it joins texts, and what it gives is neither right nor wrong",
    "nearest": "what its vectors cost is not kept apart from what it asks",
    "rank": "what it compares is not kept apart from what it asks",
    "synthesize": "it writes a text, which nobody has marked",
    "synthesize_samples": "it writes a text, which nobody has marked",
}
WHOLE_TEXTS = ("synthesize", "synthesize_samples", "rank", "nearest", "concat")
"""Strategies that give a whole text, where texts are checked as such: by default the first three, which need
no model of vectors."""
OF_ANSWERS = ("teach", "effort", "self_consistency", "orders")
"""What is only done with answers that are right or wrong."""
SAMPLING_TEMPERATURE = 0.7
"""What samples of one agent are drawn with, as for self-consistency (Wang et al. 2022)."""

MAX_SELF_CONSISTENCY = 64


class EvalOptions(Struct):
    """The options of `choir eval`.

    `data` and `dev` name files or URLs by benchmark. `samples` is how many questions are drawn from each
    benchmark (all if None), `repetitions` how often each is asked, with its options in another order. What is
    None is the benchmark's own: see `analysis.evaluation.benchmarks`. `deterministic` has the agents decode
    greedily; otherwise they sample at `temperature`. With several `prompts` each question is asked with each
    of them, `repetitions` times. `chat_template` says whether a prompt is said in the model's template (None:
    unless options are scored), `system` what is said before. With `few_shot_turns` examples are turns of a
    conversation instead of one text. `orders` is in how many orders the questions are learnt from, without
    being asked again. With `cache` greedy answers of earlier runs to the same are taken. `self_consistency`
    is how often the best agent is sampled for the baseline: None takes as many calls as the ensemble, or what
    debate's tokens pay for if that is more; 0 leaves it out. With `effort` cascades are tried on the answers:
    what they would have spared.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = "eval"
    benchmarks: Annotated[tuple[str, ...], Field(min_length=1)] = benchmarks.OWN
    strategies: Annotated[tuple[str, ...], Field(min_length=1)] = DEFAULT_STRATEGIES
    data: dict[str, str] = Field(default_factory=dict)
    dev: dict[str, str] = Field(default_factory=dict)
    models: tuple[Name, ...] = ()
    max_agents: Annotated[int, Field(ge=1)] | None = None
    samples: Annotated[int, Field(ge=1)] | None = None
    repetitions: Annotated[int, Field(ge=1, le=1000)] = 1
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 42
    deterministic: bool = False
    temperature: Annotated[float, Field(ge=0, le=5)] | None = None
    prompts: tuple[str, ...] = ()
    system: Annotated[str, StringConstraints(max_length=65_536)] = ""
    chat_template: bool | None = None
    extraction: str | None = None
    few_shot: Annotated[int, Field(ge=0, le=64)] | None = None
    few_shot_turns: bool = False
    shuffle: bool = True
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: tuple[str, ...] | None = None
    timeout_s: Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)] = 120.0
    self_consistency: Annotated[int, Field(ge=0, le=MAX_SELF_CONSISTENCY)] | None = None
    teach: bool = False
    effort: bool = False
    orders: Annotated[int, Field(ge=1, le=1000)] = 1
    cache: bool = True

    @model_validator(mode="before")
    @classmethod
    def _one_prompt_of_old(cls, said: Any) -> Any:
        """Runs of old have one `prompt`."""
        if isinstance(said, dict) and "prompt" in said:
            said = dict(said)
            prompt = said.pop("prompt")
            said.setdefault("prompts", () if prompt is None else (prompt,))
        return said

    @model_validator(mode="before")
    @classmethod
    def _texts_as_such(cls, said: Any) -> Any:
        """Where texts are checked as a whole the strategies are others, unless some are named."""
        if isinstance(said, dict) and "strategies" not in said and "ifeval" in said.get("benchmarks", ()):
            return said | {"strategies": WHOLE_TEXTS[:3]}
        return said

    @field_validator("strategies")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in WHOLE_TEXTS:
                check_strategy(name)
        if len(set(names)) != len(names):
            raise field_error("strategies", "a strategy is named twice")
        return names

    @field_validator("benchmarks")
    @classmethod
    def _there(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            benchmarks.get(name)
        if len(set(names)) != len(names):
            raise field_error("benchmarks", "a benchmark is named twice")
        return names

    @field_validator("prompts")
    @classmethod
    def _templates(cls, said: tuple[str, ...]) -> tuple[str, ...]:
        for each in said:
            template(each)
        if len(set(said)) != len(said):
            raise field_error("prompts", "a prompt is named twice")
        return said

    @model_validator(mode="after")
    def _texts_apart(self) -> EvalOptions:
        """Texts that are checked as a whole are asked for in a run of their own."""
        checked = [name for name in self.benchmarks if benchmarks.get(name).extraction == INSTRUCTIONS]
        if not checked:
            for name in self.strategies:
                check_strategy(name)
            return self
        if len(self.benchmarks) > 1:
            raise field_error("benchmarks", f"{checked[0]} is asked in a run of its own: nobody votes there")
        if voting := [name for name in self.strategies if name not in WHOLE_TEXTS]:
            raise field_error(
                "strategies",
                f"{checked[0]} checks whole texts, and {', '.join(voting)} votes on answers; there are "
                f"{', '.join(WHOLE_TEXTS)}",
            )
        defaults = type(self).model_fields
        if asked := [name for name in OF_ANSWERS if getattr(self, name) != defaults[name].default]:
            raise field_error(asked[0], f"{checked[0]} has no answers that are right or wrong: leave it out")
        if self.chat_template is False:
            raise field_error("chat_template", "texts are asked for in the model's template")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> EvalOptions:
        for field, named in (("data", self.data), ("dev", self.dev)):
            if unasked := set(named) - set(self.benchmarks):
                raise field_error(field, f"{', '.join(sorted(unasked))} is not among the benchmarks")
        if self.deterministic and self.temperature:
            raise field_error("temperature", "deterministic decodes greedily: leave the temperature out")
        if "best_single" in self.strategies and self.self_consistency == 0:
            raise field_error("self_consistency", "best_single is made from samples: 0 leaves them out")
        if self.chat_template is False and (asking := [s.name for s in specs_of(self.strategies) if s.asks]):
            raise field_error(
                "chat_template",
                f"{', '.join(asking)} ask more than the question, in conversations: they need the template",
            )
        if self.few_shot_turns and self.chat_template is False:
            raise field_error("few_shot_turns", "turns of a conversation need the model's template")
        if self.extraction is not None and self.extraction not in {name for name, _ in EXTRACTIONS}:
            raise field_error("extraction", f"there is no extraction {self.extraction!r}")
        return self

    @property
    def asking_temperature(self) -> float:
        """The temperature of the ensemble's answers."""
        if self.deterministic:
            return 0.0
        return SAMPLING_TEMPERATURE if self.temperature is None else self.temperature


def check_strategy(name: str) -> None:
    """UnknownStrategy, with those there are, unless decisions of this strategy can be scored."""
    known = tuple(each for each in STRATEGIES if each not in NOT_SCORED)
    if name not in known:
        why = NOT_SCORED.get(name, "there is no such strategy")
        raise UnknownStrategy(
            f"strategies: {name!r}: {why}; known are {', '.join(known)}", field="strategies", known=known
        )


def build_options(said: Mapping[str, Any]) -> EvalOptions:
    """The options, from what was said; InvalidRequest or UnknownStrategy names what is wrong."""
    try:
        return EvalOptions.model_validate(said)
    except ValidationError as error:
        field, what = first_fault(error, whole="options")
        raise InvalidRequest(f"{field}: {what}", field=field) from error

"""The parts of a request's page, from its result and from its events. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from schemas.ensembles.rounds import QUESTION, Purpose, purpose_of
from schemas.replies import Answer, Result
from services.client.queries.trace.pieces import Waterfall
from services.gateway.dashboard.ask.feedback import verdicts
from services.gateway.dashboard.requests.waterfall import LEGEND, costs, lines
from services.gateway.dashboard.shell.pages import fragment

NS_PER_S = 1e9
TITLES: dict[Purpose, str] = {
    "question": "Answers",
    "debate": "Debate: each answers again, having read the others",
    "prediction": "Predictions: what each thinks the others answer",
    "without_logprobs": "Asked again without probabilities",
    "sample": "Further samples",
    "synthesis": "One answer written from the others",
    "comparison": "Comparisons: which of two answers is better, A or B",
}


@dataclass(frozen=True)
class Round:
    """The answers of one round of an ensemble."""

    title: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Use:
    """What one agent, or all of them, took for a request: tasks, tokens, seconds of each kind of work."""

    agent: str
    tasks: int
    prompt_tokens: int
    generated_tokens: int
    queue_s: float
    load_s: float
    prompt_s: float
    eval_s: float

    @property
    def tokens_per_s(self) -> float | None:
        """Generated tokens by the time of generating."""
        return self.generated_tokens / self.eval_s if self.eval_s > 0 and self.generated_tokens else None


def rounds(result: Result) -> tuple[Round, ...]:
    """The answers apart by what they were asked for; further samples of one agent are together."""
    answers = sorted((*result.answers, *result.further_answers), key=lambda answer: answer.round)
    return tuple(
        Round(TITLES[purpose], tuple(group))
        for purpose, group in groupby(answers, key=lambda answer: purpose_of(answer.round))
    )


def uses(result: Result) -> tuple[Use, ...]:
    """What each agent took, and at the end all together, if there are several."""
    every = [*result.answers, *result.further_answers, *(a for step in result.steps for a in step.parts)]
    by_agent: dict[str, list[Answer]] = {}
    for answer in every:
        by_agent.setdefault(answer.agent, []).append(answer)
    each = [_use(agent, answers) for agent, answers in by_agent.items()]
    return (*each, _use("all", every)) if len(each) > 1 else tuple(each)


def _use(agent: str, answers: Sequence[Answer]) -> Use:
    def seconds(name: str) -> float:
        taken: int = sum(getattr(answer.timings, name) for answer in answers)
        return taken / NS_PER_S

    return Use(
        agent,
        len(answers),
        sum(answer.prompt_tokens for answer in answers),
        sum(answer.generated_tokens for answer in answers),
        seconds("queue_duration_ns"),
        seconds("load_duration_ns"),
        seconds("prompt_eval_duration_ns"),
        seconds("eval_duration_ns"),
    )


def result_html(result: Result, *, own_page: bool = False) -> str:
    """Text, votes, what each strategy decided, the answers round by round, the steps of a chain; with a link
    to the request's own page, unless it stands there."""
    return fragment(
        "requests/result.html.j2",
        result=result,
        rounds=rounds(result),
        uses=uses(result),
        verdicts=verdicts(result),
        question=QUESTION,
        own_page=own_page,
    )


def time_html(fall: Waterfall | None) -> str:
    """The waterfall, and what every moment was spent on."""
    if fall is None:
        return ""
    shown = lines(fall)
    kinds = {bar.kind for line in shown for bar in line.bars}
    legend = [(kind, words) for kind, words in LEGEND if kind in kinds]
    return fragment("requests/time.html.j2", fall=fall, lines=shown, costs=costs(fall), legend=legend)

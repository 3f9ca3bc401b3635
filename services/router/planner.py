"""The planner of requests: fixes once how a request will travel.

Pure: takes values, gives a plan or a typed error.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from schemas import subjects
from schemas.commands import DEFAULT_SUMMARY_PROMPT, Ask, Command, Gather, Generate, Summarize
from schemas.errors import InvalidRequest, UnknownModel, UnknownStrategy
from schemas.replies import Topology
from schemas.strategies import STRATEGIES, specs_of

FEWEST_CHOICES = 2


@dataclass(frozen=True)
class Plan:
    """The one command that is to be stored, and where.

    `models` will take part; of these `asked_first` get the prompt as it is.
    """

    topology: Topology
    subject: str
    command: Command
    models: tuple[str, ...]

    @property
    def asked_first(self) -> tuple[str, ...]:
        """A chain's first peer; otherwise all."""
        return self.models[:1] if self.topology == "chain" else self.models


def plan(
    ask: Ask, request_id: str, now_s: float, live_models: Collection[str], default_strategy: str
) -> Plan:
    """The plan of a request, given the models that live agents serve.

    Raises UnknownModel, UnknownStrategy, or InvalidRequest for limits that the ensemble cannot meet.
    """
    if ask.model is not None and ask.summarize_with:
        return _chain(ask, ask.model, request_id, now_s, live_models)
    if ask.model is not None:
        return _single(ask, ask.model, request_id, now_s, live_models)
    return _ensemble(ask, request_id, now_s, live_models, default_strategy)


def _single(ask: Ask, model: str, request_id: str, now_s: float, live_models: Collection[str]) -> Plan:
    _check_model(model, "model", live_models)
    command = Generate(
        request_id=request_id,
        agent=model,
        model=model,
        messages=ask.conversation,
        raw=ask.raw,
        embed=ask.embed,
        tools=ask.tools,
        tool_choice=ask.tool_choice,
        sampling=ask.sampling,
        priority=ask.priority,
        partition=ask.partition,
        stream=ask.stream,
        fingerprint=ask.fingerprint,
        accepted_at_s=now_s,
        deadline_at_s=now_s + ask.timeout_s,
    )
    subject = subjects.generate(ask.priority, model, request_id)
    return Plan("single", subject, command, (model,))


def _chain(ask: Ask, model: str, request_id: str, now_s: float, live_models: Collection[str]) -> Plan:
    _check_model(model, "model", live_models)
    for index, peer in enumerate(ask.summarize_with):
        _check_model(peer, f"summarize_with.{index}", live_models)
    command = Summarize(
        request_id=request_id,
        peers=(model, *ask.summarize_with),
        summary_prompt=ask.summary_prompt or DEFAULT_SUMMARY_PROMPT,
        messages=ask.conversation,
        sampling=ask.sampling,
        priority=ask.priority,
        partition=ask.partition,
        stream=ask.stream,
        fingerprint=ask.fingerprint,
        accepted_at_s=now_s,
        deadline_at_s=now_s + ask.timeout_s,
    )
    return Plan("chain", subjects.summarize(ask.priority, request_id), command, command.peers)


def _ensemble(
    ask: Ask, request_id: str, now_s: float, live_models: Collection[str], default_strategy: str
) -> Plan:
    for index, strategy in enumerate(ask.strategies):
        _check_strategy(strategy, f"strategies.{index}", ask.choices)
    for index, model in enumerate(ask.models):
        _check_model(model, f"models.{index}", live_models)
    members = ask.models or tuple(sorted(live_models))
    if not members:
        raise UnknownModel("no live agent serves any model", field="models", known=())
    members = members[: ask.max_agents]
    if ask.quorum is not None and ask.quorum > len(members):
        raise InvalidRequest(
            f"quorum: {ask.quorum} answers are asked for, and the ensemble has {len(members)} members",
            field="quorum",
        )
    command = Gather(
        request_id=request_id,
        members=members,
        strategies=ask.strategies or (default_strategy,),
        quorum=ask.quorum,
        choices=ask.choices,
        answer_kind=ask.answer_kind,
        topic=ask.topic,
        samples=ask.samples,
        messages=ask.conversation,
        tools=ask.tools,
        tool_choice=ask.tool_choice,
        sampling=ask.sampling,
        priority=ask.priority,
        partition=ask.partition,
        stream=ask.stream,
        fingerprint=ask.fingerprint,
        accepted_at_s=now_s,
        deadline_at_s=now_s + ask.timeout_s,
    )
    return Plan("ensemble", subjects.gather(ask.priority, request_id), command, members)


def _check_model(model: str, field: str, live_models: Collection[str]) -> None:
    if model not in live_models:
        known = tuple(sorted(live_models))
        raise UnknownModel(
            f"{field}: no live agent serves {model!r}; known: {', '.join(known) or 'none'}",
            field=field,
            known=known,
        )


def _check_strategy(strategy: str, field: str, choices: Sequence[str]) -> None:
    if strategy not in STRATEGIES:
        raise UnknownStrategy(
            f"{field}: there is no strategy {strategy!r}; known: {', '.join(STRATEGIES)}",
            field=field,
            known=STRATEGIES,
        )
    if len(choices) < FEWEST_CHOICES and any(spec.closed_only for spec in specs_of((strategy,))):
        raise InvalidRequest(
            f"{field}: {strategy} decides closed questions only: give at least {FEWEST_CHOICES} choices",
            field=field,
        )

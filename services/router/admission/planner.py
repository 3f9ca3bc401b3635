"""The planner of requests: fixes once who is asked, and how a request will travel.

Pure: takes values, gives a plan or a typed error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from schemas import subjects
from schemas.commands import DEFAULT_SUMMARY_PROMPT, Ask, Command, Gather, Generate, Summarize
from schemas.ensembles.named import Ensemble
from schemas.ensembles.strategies import AUTO, SPECS, STRATEGIES, specs_of
from schemas.errors import InvalidRequest, UnknownModel, UnknownStrategy
from schemas.replies import Topology
from services.chassis.plain_words import first_fault

BUILT_IN = {name: Ensemble(name=name, strategies=("auto",)) for name in ("choir/auto", "auto")}
"""All models, of which the strategy `auto` asks whom it needs."""
FEWEST_CHOICES = 2
MOST_RANKED = 8
"""As many are compared with one another: N of them take N (N - 1) (N - 2) / 2 comparisons."""


class NamedEnsembles:
    """The ensembles that the mesh keeps, which `find` knows by name, and those that are built in. The name of
    one hides a model's."""

    def __init__(self, find: Callable[[str], Ensemble | None]) -> None:
        self._find = find

    def resolve(self, ask: Ask) -> Ask:
        """The request to the members, if it names an ensemble; any other as it is.

        InvalidRequest names what one model does and no ensemble.
        """
        ensemble = None if ask.model is None else self._find(ask.model) or BUILT_IN.get(ask.model)
        if ensemble is None:
            return ask
        said = ask.model_dump(exclude={"model"}, exclude_unset=True)
        quorum = ask.quorum or ensemble.quorum
        said |= {"models": ensemble.members, "strategies": ensemble.strategies, "quorum": quorum}
        try:
            return Ask.model_validate(said)
        except ValidationError as error:
            field, what = first_fault(error)
            raise InvalidRequest(f"{field}: {what}; {ensemble.name} is an ensemble", field=field) from error


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
    ask: Ask,
    request_id: str,
    now_s: float,
    live_models: Collection[str],
    default_strategy: str,
    costs: Mapping[str, float] = MappingProxyType({}),
    on_demand: Collection[str] = frozenset(),
) -> Plan:
    """The plan of a request, given the models that live agents serve, and what each costs beside the others.
    Of these the ones that are loaded `on_demand` take part in an ensemble that names them.

    Raises UnknownModel, UnknownStrategy, or InvalidRequest for limits that the ensemble cannot meet.
    """
    if ask.model is not None and ask.effort is not None:
        raise InvalidRequest(
            "effort: it spares members of an ensemble, and one model is asked: leave it out", field="effort"
        )
    if ask.model is not None and ask.min_confidence is not None:
        raise InvalidRequest(
            "min_confidence: votes say how sure an ensemble is, and one model is asked: leave it out",
            field="min_confidence",
        )
    if ask.model is not None and ask.receipt:
        raise InvalidRequest(
            "receipt: it tells how an ensemble decided, and one model is asked: leave it out", field="receipt"
        )
    if ask.model is not None and ask.summarize_with:
        return _chain(ask, ask.model, request_id, now_s, live_models)
    if ask.model is not None:
        return _single(ask, ask.model, request_id, now_s, live_models)
    return _ensemble(ask, request_id, now_s, live_models, default_strategy, costs, on_demand)


def _of_every_command(ask: Ask, request_id: str, now_s: float) -> dict[str, Any]:
    """The fields that a command has whichever way its request travels."""
    return {
        "request_id": request_id,
        "messages": ask.conversation,
        "sampling": ask.sampling,
        "priority": ask.priority,
        "partition": ask.partition,
        "stream": ask.stream,
        "fingerprint": ask.fingerprint,
        "accepted_at_s": now_s,
        "deadline_at_s": now_s + ask.timeout_s,
    }


def _single(ask: Ask, model: str, request_id: str, now_s: float, live_models: Collection[str]) -> Plan:
    _check_model(model, "model", live_models)
    command = Generate(
        **_of_every_command(ask, request_id, now_s),
        agent=model,
        model=model,
        raw=ask.raw,
        embed=ask.embed,
        tools=ask.tools,
        tool_choice=ask.tool_choice,
        keep_alive_s=ask.keep_alive_s,
    )
    subject = subjects.generate(ask.priority, model, request_id)
    return Plan("single", subject, command, (model,))


def _chain(ask: Ask, model: str, request_id: str, now_s: float, live_models: Collection[str]) -> Plan:
    _check_model(model, "model", live_models)
    for index, peer in enumerate(ask.summarize_with):
        _check_model(peer, f"summarize_with.{index}", live_models)
    command = Summarize(
        **_of_every_command(ask, request_id, now_s),
        peers=(model, *ask.summarize_with),
        summary_prompt=ask.summary_prompt or DEFAULT_SUMMARY_PROMPT,
    )
    return Plan("chain", subjects.summarize(ask.priority, request_id), command, command.peers)


def _ensemble(
    ask: Ask,
    request_id: str,
    now_s: float,
    live_models: Collection[str],
    default_strategy: str,
    costs: Mapping[str, float],
    on_demand: Collection[str],
) -> Plan:
    for index, strategy in enumerate(ask.strategies):
        _check_strategy(strategy, f"strategies.{index}", ask.choices)
    for index, model in enumerate(ask.models):
        _check_model(model, f"models.{index}", live_models)
    if ask.synthesizer is not None:
        _check_model(ask.synthesizer, "synthesizer", live_models)
    if ask.embedder is not None:
        _check_model(ask.embedder, "embedder", live_models)
    members = ask.models or tuple(sorted(model for model in live_models if model not in on_demand))
    if not members:
        raise _nobody(live_models)
    members = members[: ask.max_agents]
    if ask.quorum is not None and ask.quorum > len(members):
        raise InvalidRequest(
            f"quorum: {ask.quorum} answers are asked for, and the ensemble has {len(members)} members",
            field="quorum",
        )
    strategies = ask.strategies or (default_strategy,)
    if "rank" in strategies and len(members) > MOST_RANKED:
        raise InvalidRequest(
            f"max_agents: rank compares each two members, of which there may be {MOST_RANKED}: here are "
            f"{len(members)}",
            field="max_agents",
        )
    if AUTO in strategies:
        _check_alone(ask, strategies)
    if ask.effort is not None:
        _check_cascades(strategies)
    if ask.min_confidence is not None:
        _check_votes(strategies[0])
    command = Gather(
        **_of_every_command(ask, request_id, now_s),
        members=members,
        strategies=strategies,
        quorum=ask.quorum,
        choices=ask.choices,
        answer_kind=ask.answer_kind,
        topic=ask.topic,
        samples=ask.samples,
        synthesizer=ask.synthesizer,
        embedder=ask.embedder,
        tools=ask.tools,
        tool_choice=ask.tool_choice,
        effort=ask.effort,
        epsilon=ask.epsilon,
        costs=tuple(costs.get(member, 0.0) for member in members) if weighs_costs(ask) else (),
        lots=None if ask.effort is None and ask.min_confidence is None and not ask.receipt else ask.lots,
        min_confidence=ask.min_confidence,
        receipt=ask.receipt,
    )
    return Plan("ensemble", subjects.gather(ask.priority, request_id), command, members)


def _nobody(live_models: Collection[str]) -> UnknownModel:
    """Why an ensemble that names no models has no members."""
    known = tuple(sorted(live_models))
    if not known:
        return UnknownModel("no live agent serves any model", field="models", known=())
    return UnknownModel(
        f"models: every model is loaded on demand here, so name those that are to answer: {', '.join(known)}",
        field="models",
        known=known,
    )


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


def weighs_costs(ask: Ask) -> bool:
    """Whether it matters what members cost: not all of them may be asked."""
    return ask.effort is not None or AUTO in ask.strategies


def _check_alone(ask: Ask, strategies: tuple[str, ...]) -> None:
    """Whom `auto` asks is its own choice: other strategies, an effort and a quorum would say otherwise."""
    said = {
        "strategies": len(strategies) > 1,
        "effort": ask.effort is not None,
        "quorum": ask.quorum is not None,
    }
    for field, is_said in said.items():
        if is_said:
            raise InvalidRequest(f"{field}: auto chooses itself whom it asks: it stands alone", field=field)


def _check_cascades(strategies: tuple[str, ...]) -> None:
    """Of some strategies nothing can be said before all have answered: they are not decided with fewer."""
    able = tuple(spec.name for spec in SPECS if spec.cascades)
    for strategy in strategies:
        if strategy not in able:
            raise InvalidRequest(
                f"effort: {strategy} needs all members; with an effort decide by {', '.join(able)}, or leave "
                "it out",
                field="effort",
                known=able,
            )


def _check_votes(strategy: str) -> None:
    """How sure an answer is can be said where answers are votes: of texts that are put together it cannot."""
    able = tuple(spec.name for spec in SPECS if spec.votes)
    if strategy not in able:
        raise InvalidRequest(
            f"min_confidence: {strategy} chooses no answer that could be right; decide by one of "
            f"{', '.join(able)}, or leave it out",
            field="min_confidence",
            known=able,
        )

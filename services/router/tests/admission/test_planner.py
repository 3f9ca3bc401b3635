"""How a request travels is fixed once, from what is asked and who is there."""

from __future__ import annotations

from typing import Any

import pytest

from schemas import subjects
from schemas.commands import Ask, Gather, Generate, Summarize
from schemas.ensembles.strategies import STRATEGIES
from schemas.errors import ChoirError, InvalidRequest, UnknownModel, UnknownStrategy
from services.router.admission.planner import Plan, plan

LIVE = ("alpha", "beta", "llama3.2:3b")


def planned(live: tuple[str, ...] = LIVE, **ask: Any) -> Plan:
    return plan(Ask(prompt="hi", **ask), "r1", 100.0, live, "majority")


def test_one_model_is_one_task_whose_answer_is_the_result() -> None:
    made = planned(model="llama3.2:3b", timeout_s=7, priority="batch", stream=True)
    assert (made.topology, made.models) == ("single", ("llama3.2:3b",))
    assert made.subject == subjects.generate("batch", "llama3.2:3b", "r1")
    assert isinstance(made.command, Generate)
    assert made.command.routing_slip == ()
    assert (made.command.accepted_at_s, made.command.deadline_at_s) == (100.0, 107.0)
    assert made.command.stream
    assert made.command.messages[0].content == "hi"


def test_a_chain_is_one_command_that_names_its_peers_in_order() -> None:
    made = planned(model="beta", summarize_with=["alpha", "beta"], priority="batch", timeout_s=7)
    assert (made.topology, made.models, made.asked_first) == ("chain", ("beta", "alpha", "beta"), ("beta",))
    assert made.subject == subjects.summarize("batch", "r1")
    assert isinstance(made.command, Summarize)
    assert made.command.peers == made.models
    assert made.command.summary_prompt == "Summarize: {text}"
    assert (made.command.accepted_at_s, made.command.deadline_at_s) == (100.0, 107.0)


def test_without_a_model_all_that_are_alive_are_an_ensemble() -> None:
    made = planned()
    assert made.topology == "ensemble"
    assert made.subject == subjects.gather("interactive", "r1")
    assert isinstance(made.command, Gather)
    assert made.command.members == tuple(sorted(LIVE))
    assert made.command.strategies == ("majority",)


def test_models_that_are_named_are_the_members_in_their_order() -> None:
    made = planned(
        models=["beta", "alpha"], strategies=["weighted", "majority"], quorum=1, choices=["x", "y"]
    )
    assert isinstance(made.command, Gather)
    assert made.command.members == ("beta", "alpha")
    assert made.command.strategies == ("weighted", "majority")
    assert (made.command.quorum, made.command.choices) == (1, ("x", "y"))


def test_what_strategies_need_to_know_travels_with_the_command() -> None:
    made = planned(strategies=["best_single", "average"], samples=5, topic="capitals", choices=["x", "y"])
    assert isinstance(made.command, Gather)
    assert (made.command.samples, made.command.topic) == (5, "capitals")


def test_an_ensemble_has_no_more_members_than_were_asked_for() -> None:
    assert planned(max_agents=2).models == ("alpha", "beta")


def test_the_plan_does_not_depend_on_the_order_of_the_leases() -> None:
    assert planned(live=LIVE) == planned(live=tuple(reversed(LIVE)))


@pytest.mark.parametrize(
    ("ask", "error", "field", "known"),
    [
        ({"model": "omega"}, UnknownModel, "model", LIVE),
        ({"model": "alpha", "summarize_with": ["omega"]}, UnknownModel, "summarize_with.0", LIVE),
        ({"model": "omega", "summarize_with": ["alpha"]}, UnknownModel, "model", LIVE),
        ({"models": ["alpha", "omega"]}, UnknownModel, "models.1", LIVE),
        ({"strategies": ["majority", "dice"]}, UnknownStrategy, "strategies.1", STRATEGIES),
        ({"strategies": ["majority", "average"]}, InvalidRequest, "strategies.1", None),
        ({"quorum": 4}, InvalidRequest, "quorum", None),
        ({"quorum": 3, "max_agents": 2}, InvalidRequest, "quorum", None),
    ],
)
def test_what_cannot_be_is_refused_with_the_field_and_what_there_is(
    ask: dict[str, Any], error: type[ChoirError], field: str, known: tuple[str, ...] | None
) -> None:
    with pytest.raises(error) as refused:
        planned(**ask)
    assert refused.value.field == field
    assert refused.value.message.startswith(f"{field}: ")
    assert refused.value.known == known


@pytest.mark.parametrize("ask", [{}, {"model": "alpha"}])
def test_without_any_agent_no_model_is_known(ask: dict[str, Any]) -> None:
    with pytest.raises(UnknownModel) as refused:
        planned(live=(), **ask)
    assert refused.value.known == ()


def test_an_effort_goes_with_what_members_cost_and_with_the_lots_of_the_full_vote() -> None:
    full, less = Ask(prompt="hi"), Ask(prompt="hi", effort="exact")
    made = plan(less, "r1", 100.0, LIVE, "majority", {"alpha": 3.0, "beta": 7.0})
    assert isinstance(made.command, Gather)
    assert (made.command.effort, made.command.costs) == ("exact", (3.0, 7.0, 0.0))
    assert made.command.lots == full.fingerprint != less.fingerprint == made.command.fingerprint
    plain = plan(full, "r1", 100.0, LIVE, "majority", {"alpha": 3.0}).command.to_bytes()
    assert not any(field in plain for field in (b"effort", b"epsilon", b"costs", b"lots"))


def test_an_effort_is_refused_where_fewer_answers_prove_nothing() -> None:
    for strategy in ("debate", "concat", "best_single", "isp_elicited"):
        with pytest.raises(InvalidRequest, match=f"effort: {strategy} needs all members") as caught:
            planned(effort="exact", strategies=["majority", strategy])
        assert caught.value.field == "effort"
    with pytest.raises(InvalidRequest, match="effort: it spares members of an ensemble"):
        planned(effort="exact", model="alpha")


def test_an_ensemble_that_names_nobody_leaves_out_what_is_loaded_on_demand() -> None:
    def members(ask: Ask, on_demand: set[str]) -> tuple[str, ...]:
        made = plan(ask, "r1", 100.0, LIVE, "majority", on_demand=on_demand)
        assert isinstance(made.command, Gather)
        return made.command.members

    assert members(Ask(prompt="hi"), {"beta"}) == tuple(sorted(set(LIVE) - {"beta"}))
    assert members(Ask(prompt="hi", models=("beta", "alpha")), {"beta"}) == ("beta", "alpha")
    with pytest.raises(UnknownModel, match="every model is loaded on demand here, so name"):
        members(Ask(prompt="hi"), set(LIVE))


def test_how_sure_an_ensemble_must_be_travels_with_the_lots_of_any_other() -> None:
    plain, sure = Ask(prompt="hi"), Ask(prompt="hi", min_confidence=0.9)
    made = plan(sure, "r1", 100.0, LIVE, "majority").command
    assert isinstance(made, Gather)
    assert (made.min_confidence, made.lots) == (0.9, plain.fingerprint)
    assert sure.fingerprint != plain.fingerprint
    for ask, why in (
        ({"model": "alpha"}, "one model is asked"),
        ({"strategies": ["concat"]}, "concat chooses"),
    ):
        with pytest.raises(InvalidRequest, match=f"min_confidence: .*{why}") as caught:
            planned(min_confidence=0.5, **ask)
        assert caught.value.field == "min_confidence"


def test_auto_chooses_alone_whom_it_asks() -> None:
    made = plan(Ask(prompt="hi", strategies=("auto",)), "r1", 100.0, LIVE, "majority", {"alpha": 3.0})
    assert isinstance(made.command, Gather) and made.command.costs == (3.0, 0.0, 0.0)
    wrong: dict[str, Any] = {"strategies": ["auto", "majority"], "effort": "exact", "quorum": 2}
    for field, value in wrong.items():
        ask: dict[str, Any] = {"strategies": ["auto"], field: value}
        with pytest.raises(InvalidRequest, match=f"{field}: auto chooses itself") as caught:
            planned(**ask)
        assert caught.value.field == field

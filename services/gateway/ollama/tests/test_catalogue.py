"""What is told of models, where the mesh knows much, little, or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import InvalidRequest
from schemas.nodes.lease import OnDemand
from schemas.replies import ModelSummary
from services.gateway.ollama.bodies import LONGEST_S, GenerateBody
from services.gateway.ollama.models import catalogue
from services.gateway.requests.ensembles import Ensemble
from services.gateway.requests.models import Target

BIG = ModelSummary(
    name="llama3.2:3b", agents=("a",), slots=1, busy=0, context_tokens=8_192, parameters=3_200_000_000,
    file="llama.gguf", size_bytes=2_000_000_000, quantisation="Q4_K_M", capabilities=("completion", "tools"),
)  # fmt: skip
SMALL = ModelSummary(
    name="tiny", agents=("b",), slots=1, busy=0, context_tokens=512, parameters=5_000_000,
    capabilities=("completion", "embedding"),
)  # fmt: skip
UNKNOWN = ModelSummary(name="far", agents=("c",), slots=1, busy=0)
ONE = Target("llama3.2:3b", "llama3.2:3b", (BIG,))
BOTH = Target("choir/debate:latest", "choir/debate", (BIG, SMALL), Ensemble("choir/debate", "debate"))
NOBODY_KNOWS = Target("far:latest", "far", (UNKNOWN,))


def test_a_model_is_shown_with_its_figures() -> None:
    details = catalogue.details(ONE)
    assert (details["parameter_size"], details["quantization_level"], details["format"]) == (
        "3.2B", "Q4_K_M", "gguf",
    )  # fmt: skip
    shown = catalogue.shown(ONE, 0.0)
    assert shown["model_info"]["choir.context_length"] == 8_192
    assert shown["parameters"] == "num_ctx 8192"
    assert ".Tools" in shown["template"]
    assert f'TEMPLATE """{shown["template"]}"""' in shown["modelfile"]  # a Modelfile knows no other quotes


def test_an_ensemble_can_what_all_its_members_can_and_holds_what_the_smallest_holds() -> None:
    shown = catalogue.shown(BOTH, 0.0)
    assert shown["details"]["family"] == "choir-ensemble"
    assert shown["capabilities"] == ["completion"]
    assert ".Tools" not in shown["template"]
    assert [v for k, v in shown["model_info"].items() if k.endswith("context_length")] == [512]


def test_what_is_not_known_is_not_invented() -> None:
    shown = catalogue.shown(NOBODY_KNOWS, 0.0)
    assert not [key for key in shown["model_info"] if key.endswith("context_length")]
    assert (shown["parameters"], shown["details"]["parameter_size"]) == ("", "")
    assert shown["capabilities"] == ["completion"]


@pytest.mark.parametrize("target", [ONE, BOTH, Target("tiny:latest", "tiny", (SMALL,))])
def test_the_ollama_command_before_0_12_finds_the_numbers_without_which_it_panics(target: Target) -> None:
    info = catalogue.shown(target, 0.0)["model_info"]
    family = info["general.architecture"]
    wanted = ("general.parameter_count", f"{family}.context_length", f"{family}.embedding_length")
    assert [type(info[name]) for name in wanted] == [int, int, int]


def test_parameters_that_nobody_tells_are_a_number_too() -> None:
    assert catalogue.shown(NOBODY_KNOWS, 0.0)["model_info"]["general.parameter_count"] == 0


def test_a_model_that_only_gives_vectors_says_so() -> None:
    vectors = Target("e:latest", "e", (SMALL.model_copy(update={"capabilities": ("embedding",)}),))
    assert catalogue.capabilities(vectors) == ["embedding"]


def test_a_digest_changes_with_the_model_only() -> None:
    assert len(catalogue.digest(ONE)) == 64
    busy = Target(ONE.name, ONE.plain_name, (BIG.model_copy(update={"busy": 1, "agents": ("a", "z")}),))
    assert catalogue.digest(busy) == catalogue.digest(ONE)
    other = Target(ONE.name, ONE.plain_name, (BIG.model_copy(update={"size_bytes": 1}),))
    assert len({catalogue.digest(each) for each in (ONE, other, BOTH, NOBODY_KNOWS)}) == 4


def test_a_model_on_demand_is_in_memory_only_when_it_is_loaded_and_says_until_when() -> None:
    def served(**fields: Any) -> Target:
        on_demand = OnDemand(memory_bytes=1, budget_bytes=2, **fields)
        return Target("tiny:latest", "tiny", (SMALL.model_copy(update={"on_demand": on_demand}),))

    assert catalogue.is_loaded(ONE) and catalogue.running(ONE)["expires_at"] == catalogue.NEVER
    assert not catalogue.is_loaded(served(state="unloaded"))
    loaded = served(state="loaded", unload_at_s=1_700_000_000.0)
    assert catalogue.is_loaded(loaded)
    assert catalogue.running(loaded)["expires_at"] == "2023-11-14T22:13:20Z"


def test_how_long_a_model_stays_is_said_in_seconds_or_as_go_says_it() -> None:
    for given, span_s in (
        (None, None), ("", None), (0, 0.0), ("0", 0.0), (300, 300.0), ("5m", 300.0), ("1h30m", 5400.0),
        ("500ms", 0.5), ("1.5h", 5400.0), (-1, -1.0), ("-1", -1.0), ("-5m", -1.0),
        ("5", 5.0), (1e12, LONGEST_S),
    ):  # fmt: skip
        assert GenerateBody(model="tiny", keep_alive=given).keep_alive_s == span_s, given
    for given in ("soon", "m5", float("inf"), "5 m"):
        body = GenerateBody(model="tiny", keep_alive=given)
        with pytest.raises(InvalidRequest, match="keep_alive"):
            _ = body.keep_alive_s

"""What is told of models, where the mesh knows much, little, or nothing."""

from __future__ import annotations

from schemas.replies import ModelSummary
from services.gateway.ensembles import Ensemble
from services.gateway.models import Target
from services.gateway.ollama import catalogue

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


def test_a_model_that_only_gives_vectors_says_so() -> None:
    vectors = Target("e:latest", "e", (SMALL.model_copy(update={"capabilities": ("embedding",)}),))
    assert catalogue.capabilities(vectors) == ["embedding"]


def test_a_digest_changes_with_the_model_only() -> None:
    assert len(catalogue.digest(ONE)) == 64
    busy = Target(ONE.name, ONE.plain_name, (BIG.model_copy(update={"busy": 1, "agents": ("a", "z")}),))
    assert catalogue.digest(busy) == catalogue.digest(ONE)
    other = Target(ONE.name, ONE.plain_name, (BIG.model_copy(update={"size_bytes": 1}),))
    assert len({catalogue.digest(each) for each in (ONE, other, BOTH, NOBODY_KNOWS)}) == 4

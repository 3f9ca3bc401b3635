"""Ollama's options: its defaults, its special numbers, what nobody knows."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import InvalidRequest
from schemas.requests.sampling import Sampling
from services.gateway.ollama.options import read_options, sampling_fields

PASSED: list[str] = []
REQUEST = "01JD0000000000000000000000"


def sampling(given: dict[str, Any] | None = None, request_id: str = REQUEST) -> Sampling:
    return Sampling.model_validate(sampling_fields(read_options(given, PASSED.append), request_id))


def test_without_options_a_text_is_sampled_as_ollama_does() -> None:
    drawn = sampling()
    assert (drawn.temperature, drawn.top_k, drawn.top_p, drawn.repeat_penalty) == (0.8, 40, 0.9, 1.1)
    assert drawn.max_tokens == 32_768
    assert drawn.stop == ()


def test_a_seed_that_is_not_given_is_the_requests_own() -> None:
    assert sampling().seed == sampling({"seed": -1}).seed == sampling().seed
    assert sampling().seed != sampling(request_id=REQUEST[::-1]).seed
    assert sampling({"seed": 42}).seed == 42
    assert sampling({"seed": 2**32 + 1}).seed == 1


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"num_predict": -1}, "max_tokens", 32_768),
        ({"num_predict": -2}, "max_tokens", 32_768),
        ({"num_predict": 10**9}, "max_tokens", 32_768),
        ({"num_predict": 5.0}, "max_tokens", 5),
        ({"temperature": 0}, "temperature", 0.0),
        ({"top_k": -1}, "top_k", 0),
        ({"top_k": 10**6}, "top_k", 1_000),
        ({"top_p": 0}, "top_p", 1e-6),
        ({"top_p": 2}, "top_p", 1.0),
        ({"min_p": 0.05}, "min_p", 0.05),
        ({"repeat_penalty": 1.0}, "repeat_penalty", 1.0),
        ({"repeat_penalty": 0}, "repeat_penalty", 1.1),
        ({"frequency_penalty": -0.5}, "frequency_penalty", -0.5),
        ({"stop": "END"}, "stop", ("END",)),
        ({"stop": ["a", "", "b", "a"]}, "stop", ("a", "b")),
        ({"temperature": None}, "temperature", 0.8),
    ],
)
def test_an_option_is_what_ollama_means_by_it(given: dict[str, Any], field: str, value: object) -> None:
    assert getattr(sampling(given), field) == value


def test_what_nobody_knows_is_told_and_what_a_host_decides_is_not() -> None:
    passed_over: list[str] = []
    read_options({"mirostat": 1, "tfs_z": 1.0, "num_ctx": 4096, "temperature": 0.5}, passed_over.append)
    assert passed_over == ["mirostat", "tfs_z"]


@pytest.mark.parametrize(
    "given", [{"temperature": "0.5"}, {"top_k": 1.5}, {"stop": {}}, {"seed": True}, {"num_predict": [1]}]
)
def test_a_wrong_type_is_an_error_that_names_the_option(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_options(given, PASSED.append)
    assert raised.value.field == f"options.{next(iter(given))}"

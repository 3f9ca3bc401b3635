"""What HTTP says of an error, for each code that there is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import pytest

from schemas.errors import (
    ERRORS_BY_CODE,
    ChoirError,
    ConfigurationError,
    ErrorCode,
    InvalidRequest,
    NoAnswers,
    Overloaded,
)
from schemas.requests.keys import ApiKey, KeyScope
from services.gateway.access.caller import Caller, current_caller
from services.gateway.anthropic.error import error_object as of_anthropic
from services.gateway.http.errors import headers_of, status_of
from services.gateway.ollama.replies import error_line, error_reply
from services.gateway.openai.batches.line import unanswered
from services.gateway.openai.replying.error import error_object as of_openai


@pytest.mark.parametrize("code", get_args(ErrorCode))
def test_each_code_has_a_status_of_its_kind(code: ErrorCode) -> None:
    error = ERRORS_BY_CODE[code]("why")
    assert 400 <= status_of(error) <= 504


def test_a_mesh_that_is_not_set_up_for_what_is_asked_is_no_fault_of_the_gateway() -> None:
    assert status_of(ConfigurationError("the broker listens on its own host alone")) == 409


def test_who_is_refused_for_now_is_told_when_to_come_again() -> None:
    busy = Overloaded("full", retry_after_s=1.2)
    assert status_of(busy) == 429
    assert headers_of(busy) == {"retry-after": "2", "retry-after-ms": "1200"}


def test_work_that_was_done_in_vain_is_not_to_be_repeated_at_once() -> None:
    assert headers_of(NoAnswers("none")) == {"x-should-retry": "false"}


SERVER = "http://10.1.2.3:8000"
TELLS: dict[str, Callable[[ChoirError], Any]] = {
    "ollama": lambda error: bytes(error_reply(502, error).body).decode(),
    "a stream of ollama": lambda error: error_line(error).decode(),
    "openai": of_openai,
    "a batch": lambda error: unanswered("batch-1", "one", error).decode(),
    "anthropic": of_anthropic,
}


@contextmanager
def called_with(*scopes: KeyScope) -> Iterator[None]:
    key = ApiKey(id="k-one", digest="0" * 64, ending="aaaa", created_at_s=0, scopes=scopes)
    token = current_caller.set(Caller(key=key))
    try:
        yield
    finally:
        current_caller.reset(token)


@pytest.mark.parametrize("told", TELLS.values(), ids=TELLS)
@pytest.mark.parametrize("code", ["worker_failed", "generation_failed", "context_exceeded", "no_answers"])
def test_where_a_server_is_and_what_it_said_is_for_those_who_observe(
    told: Callable[[ChoirError], Any], code: ErrorCode
) -> None:
    error = ERRORS_BY_CODE[code](f"{SERVER} answered with status 500: Traceback of its own")
    with called_with("generate"):
        for word in ("10.1.2.3", "Traceback"):
            assert word not in json.dumps(told(error))
    with called_with("generate", "observe"):
        assert SERVER in json.dumps(told(error))
    assert SERVER in json.dumps(told(error)), "who asks on this host, without a key"


def test_a_field_that_a_server_does_not_know_is_named_without_the_server() -> None:
    error = InvalidRequest(f"sampling.logprobs: {SERVER} does not say them", field="sampling.logprobs")
    own = InvalidRequest("images by address are not fetched: http://a.example/cat.png", field="messages.0")
    with called_with("generate"):
        told = of_openai(error)["error"]["message"]
        assert told == "sampling.logprobs: the server of this model does not say them"
        assert "http://a.example/cat.png" in of_openai(own)["error"]["message"]

"""What is wrong with a request is said in plain words, with its field."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from schemas.commands import Ask
from schemas.nodes.workers import Worker
from services.chassis.plain_words import first_fault

WORKER: dict[str, Any] = {"id": "a", "type": "ollama", "host": "h", "port": 1, "model": "m"}


@pytest.mark.parametrize(
    ("model", "fields", "said"),
    [
        (Ask, {"prompt": ""}, ("prompt", "it must not be empty")),
        (Ask, {"prompt": " "}, ("prompt", "it must not be blank")),
        (Ask, {"prompt": "a", "colour": 1}, ("colour", "there is no such field")),
        (Ask, {"prompt": "a", "timeout_s": 1e9}, ("timeout_s", "it must be at most 3600.0")),
        (Ask, {"prompt": "a", "timeout_s": float("nan")}, ("timeout_s", "it must be a finite number")),
        (Ask, {"prompt": "a", "model": "two words"}, ("model", "it must have no spaces")),
        (Ask, {"prompt": "a", "answer_kind": "x"}, ("answer_kind", "it must be 'auto', 'choice',")),
        (Ask, {"prompt": "a", "choices": ["b"]}, ("choices", "one option is no choice")),
        (Ask, {"prompt": "a", "choices": ["b"] * 27}, ("choices", "it may have 26 entries at most")),
        (Ask, {"prompt": "a", "sampling": {"seed": -1}}, ("seed", "it must be at least 0")),
        (Ask, {"prompt": "a", "request_id": "a b"}, ("request_id", "it may have letters, digits, - and _")),
        (Worker, {**WORKER, "host": "a b"}, ("host", "it must be the name or the address of a host")),
        (
            Worker,
            {**WORKER, "key_variable": "a-b"},
            ("key_variable", "it must be the name of an"),
        ),
    ],
)
def test_a_fault_is_said_in_plain_words(
    model: type[BaseModel], fields: dict[str, Any], said: tuple[str, str]
) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(fields)
    field, words = first_fault(refused.value, passed_over=("sampling",))
    assert field == said[0]
    assert words.startswith(said[1])


def test_what_is_no_json_is_said_to_be_none() -> None:
    with pytest.raises(ValidationError) as refused:
        Ask.model_validate_json(b"{")
    assert first_fault(refused.value, whole="body") == (
        "body",
        "it is no JSON: EOF while parsing an object at line 1 column 1",
    )

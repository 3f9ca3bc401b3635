from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import InvalidRequest
from schemas.requests.sampling import Sampling
from services.engine.decode.grammar import MAX_NESTING, grammar_of


def test_without_a_constraint_there_is_no_grammar() -> None:
    assert grammar_of(Sampling()) is None


def test_a_schema_becomes_a_grammar() -> None:
    grammar = grammar_of(Sampling(json_schema={"type": "integer"}))
    assert grammar is not None and "root ::=" in grammar


def test_a_grammar_is_passed_on_as_it_is() -> None:
    assert grammar_of(Sampling(grammar='root ::= "a"')) == 'root ::= "a"'


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strange"},
        {"$ref": "https://example.org/schema.json"},
        {"$ref": "#/nowhere"},
        {"$ref": 7},
        {"type": "array", "items": {"type": "integer"}, "maxItems": 10**9},
        {"type": "string", "minLength": -1},
        {"type": "string", "pattern": "^((a{999}){999}){999}$"},
        {"type": "string", "pattern": "("},
        {"properties": []},
        {"enum": 5},
        {"oneOf": [1]},
    ],
)
def test_a_schema_that_cannot_be_is_an_invalid_request(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        grammar_of(Sampling(json_schema=schema))
    assert caught.value.field == "sampling.json_schema"


def test_a_schema_nested_too_deep_is_an_invalid_request() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(3_000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InvalidRequest):
        grammar_of(Sampling(json_schema=schema))


@pytest.mark.parametrize("grammar", [" ", 'root ::= "\0"', "root ::= " + "(" * (MAX_NESTING + 1)])
def test_a_grammar_that_would_harm_the_parser_is_an_invalid_request(grammar: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        grammar_of(Sampling(grammar=grammar))
    assert caught.value.field == "sampling.grammar"


def test_brackets_inside_literals_do_not_count_as_nesting() -> None:
    grammar = 'root ::= "' + "(" * (MAX_NESTING + 1) + '" [' + "(" * (MAX_NESTING + 1) + "]"
    assert grammar_of(Sampling(grammar=grammar)) == grammar

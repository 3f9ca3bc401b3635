"""Constraints on a text: a JSON schema or a GBNF grammar, checked before llama.cpp parses it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import prod
from typing import Any

from llama_cpp.llama_grammar import json_schema_to_gbnf

from schemas.errors import InvalidRequest
from schemas.requests.sampling import Sampling

MAX_GRAMMAR_CHARACTERS = 1 << 18
# llama.cpp's parser calls itself for every bracket: between 10,000 and 20,000 overflow an 8 MB stack.
MAX_NESTING = 2_000
# A bounded repetition is written out in full, so these are also the sizes of what is built.
MAX_REPETITIONS = 1_000
REPETITION_KEYS = ("minLength", "maxLength", "minItems", "maxItems")
SCHEMA_FIELD = "sampling.json_schema"
GRAMMAR_FIELD = "sampling.grammar"

ANY_CHARACTER = r'char ::= [^"\\] |'
NO_CONTROL_CHARACTER = r'char ::= [^"\\\x00-\x1F\x7F] |'
"""What stands in a string without being escaped: for the converter any character, for JSON no line break."""

# One that is never closed reaches to the end. Were it none, each quotation mark in it might be a beginning.
_LITERALS = re.compile(r'"(?:\\.|[^"\\])*(?:"|\\?\Z)|\[(?:\\.|[^\]\\])*(?:\]|\\?\Z)|#[^\n]*', re.DOTALL)
_BRACES = re.compile(r"\{([^{}]*)\}")


def constraint_field(sampling: Sampling) -> str:
    """The name of the field that the constraint of `sampling` came in."""
    return GRAMMAR_FIELD if sampling.json_schema is None else SCHEMA_FIELD


def grammar_of(sampling: Sampling) -> str | None:
    """The GBNF that constrains a generation, or None; raises InvalidRequest for one that cannot be."""
    if sampling.json_schema is not None:
        grammar = _from_schema(sampling.json_schema)
    elif sampling.grammar is not None:
        grammar = sampling.grammar
    else:
        return None
    _check_grammar(grammar, constraint_field(sampling))
    return grammar


def _from_schema(schema: dict[str, Any]) -> str:
    for part in _parts(schema):
        _check_repetitions(part)
    try:
        return str(json_schema_to_gbnf(json.dumps(schema))).replace(ANY_CHARACTER, NO_CONTROL_CHARACTER)
    # The converter checks little: what a schema can make it raise is this.
    except (AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        reason = str(error)[:200] or type(error).__name__
        raise InvalidRequest(f"the JSON schema cannot be used: {reason}", field=SCHEMA_FIELD) from error


def _parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object inside a schema, itself first."""
    left: list[Any] = [schema]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            yield part
            left.extend(part.values())
        elif isinstance(part, list):
            left.extend(part)


def _check_repetitions(part: dict[str, Any]) -> None:
    bounds = [part[key] for key in REPETITION_KEYS if isinstance(part.get(key), int)]
    pattern = part.get("pattern")
    if isinstance(pattern, str):
        # Repetitions inside repetitions multiply; whether these are is not known here.
        bounds.append(prod(_most(braces) for braces in _BRACES.findall(pattern)))
    if any(not 0 <= bound <= MAX_REPETITIONS for bound in bounds):
        raise InvalidRequest(f"the JSON schema repeats more than {MAX_REPETITIONS} times", field=SCHEMA_FIELD)


def _most(braces: str) -> int:
    """How often "3", "1,3" or "3," repeats at least what is before it; 1 for what is no repetition."""
    number = braces.rstrip().removesuffix(",").rstrip()
    begin = len(number)
    while begin and number[begin - 1].isdecimal():
        begin -= 1
    return int(number[begin:][-9:] or 1) or 1


def _check_grammar(grammar: str, field: str) -> None:
    if not grammar.strip() or "\0" in grammar:
        raise InvalidRequest("the grammar is empty or holds a NUL character", field=field)
    if len(grammar) > MAX_GRAMMAR_CHARACTERS:
        raise InvalidRequest(f"the grammar is longer than {MAX_GRAMMAR_CHARACTERS} characters", field=field)
    if _nesting(grammar) > MAX_NESTING:
        raise InvalidRequest(f"the grammar nests brackets deeper than {MAX_NESTING}", field=field)


def _nesting(grammar: str) -> int:
    """The depth of brackets outside literals, at least; one that is never closed counts too."""
    deepest = depth = 0
    for character in _LITERALS.sub("", grammar):
        depth = max(0, depth + (character == "(") - (character == ")"))
        deepest = max(deepest, depth)
    return deepest

"""What is wrong in choir.toml or in the environment, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

Place = tuple[int | str, ...]

UNKNOWN_KEY = "extra_forbidden"
OWN_WORDS = ("value_error", "assertion_error")
PLAIN: Mapping[str, str] = {
    "missing": "it is missing",
    "greater_than_equal": "it must be at least {ge}",
    "greater_than": "it must be greater than {gt}",
    "less_than_equal": "it must be at most {le}",
    "less_than": "it must be less than {lt}",
    "literal_error": "it must be {expected}",
    "enum": "it must be {expected}",
    "string_too_short": "it must not be empty",
    "string_too_long": "it may have {max_length} characters at most",
    "string_pattern_mismatch": "it does not have the form {pattern}",
    "string_type": "it must be a text",
    "int_type": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "float_type": "it must be a number",
    "float_parsing": "it must be a number",
    "bool_type": "it must be true or false",
    "bool_parsing": "it must be true or false",
    "path_type": "it must be the path of a file or a folder",
    "model_type": "it must be a section with keys",
    "model_attributes_type": "it must be a section with keys",
    "dict_type": "it must be a section with keys",
    "tuple_type": "it must be a list",
    "list_type": "it must be a list",
    "too_short": "it must have at least {min_length} entries",
    "too_long": "it may have {max_length} entries at most",
}
"""Pydantic's type of an error, and what is said of it. Whatever is not here is said as Pydantic does."""


def faults_of(error: ValidationError, settings: type[BaseModel]) -> tuple[tuple[str, str], ...]:
    """Each fault once: the dotted path of a setting ("" for several together), and what is wrong with it."""
    found = ((_dotted(fault["loc"]), _said(fault, settings)) for fault in error.errors())
    return tuple(dict.fromkeys(found))


def _dotted(place: Place) -> str:
    return ".".join(str(part) for part in place)


def _said(fault: Any, settings: type[BaseModel]) -> str:
    kind: str = fault["type"]
    if kind == UNKNOWN_KEY:
        *section, key = fault["loc"]
        near = get_close_matches(str(key), sorted(_keys(settings, tuple(section))), n=1)
        return "there is no such key" + (f"; did you mean {near[0]}?" if near else "")
    if kind in OWN_WORDS:
        return str(fault["ctx"]["error"])
    plain = PLAIN.get(kind)
    return plain.format(**fault.get("ctx", {})) if plain else str(fault["msg"])


def _keys(settings: type[BaseModel], section: Place) -> set[str]:
    """The keys that a section may have."""
    models = [settings]
    for part in section:
        if isinstance(part, int):
            continue  # which entry of a list: they are all of one kind
        models = [
            inner
            for model in models
            if part in model.model_fields
            for inner in _models_in(model.model_fields[part].annotation)
        ] or models  # a key of the user's own choice, as in a table of names
    return {name for model in models for name in model.model_fields}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)

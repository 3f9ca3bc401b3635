"""Says in plain words what is wrong in choir.toml or in the environment."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from services.chassis.plain_words import plain_words

Place = tuple[int | str, ...]

UNKNOWN_KEY = "extra_forbidden"


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
    return plain_words(fault)


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

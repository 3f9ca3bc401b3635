"""Says in plain words what pydantic finds wrong: in settings, requests, options and files alike."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from pydantic import ValidationError

OWN_WORDS = ("value_error", "assertion_error")
PLAIN: Mapping[str, str] = {
    "missing": "it is missing",
    "extra_forbidden": "there is no such field",
    "greater_than_equal": "it must be at least {ge}",
    "greater_than": "it must be greater than {gt}",
    "less_than_equal": "it must be at most {le}",
    "less_than": "it must be less than {lt}",
    "finite_number": "it must be a finite number",
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
    "json_invalid": "it is no JSON: {error}",
}
"""Pydantic's type of an error, and what is said of it. Whatever is not here is said as Pydantic does."""

PATTERNS: Mapping[str, str] = {
    r"\S": "it must not be blank",
    r"^[^\s\x00-\x1f\x7f-\x9f]+$": "it must have no spaces and no control characters",
    r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$": "it must not begin or end "
    "with a space, nor have control characters",
    r"^[A-Za-z0-9_-]{1,64}$": "it may have letters, digits, - and _, at most 64 of them",
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": "it may have letters, digits, ., - and _, at most 64 of them, and "
    "begins with a letter or a digit",
    r"^[A-Za-z0-9._:-]{1,253}$": "it must be the name or the address of a host",
    r"^https?://\S+$": "it must be an address such as http://127.0.0.1:4318",
    r"^[A-Za-z_][A-Za-z0-9_]{0,127}$": "it must be the name of an environment variable",
}
"""What a pattern asks for, in words."""


def plain_words(fault: Any) -> str:
    """What is wrong, from one of the `errors()` of a ValidationError."""
    kind, details = fault["type"], fault.get("ctx", {})
    if kind in OWN_WORDS:
        return str(details["error"])
    if details.get("pattern") in PATTERNS:
        return PATTERNS[details["pattern"]]
    if kind == "string_too_short" and details["min_length"] > 1:
        return f"it must have at least {details['min_length']} characters"
    if kind == "too_short" and details["min_length"] == 1:
        return "it must not be empty"
    plain = PLAIN.get(kind)
    return plain.format(**details) if plain else str(fault["msg"])


def first_fault(
    error: ValidationError, whole: str = "request", passed_over: Container[object] = ()
) -> tuple[str, str]:
    """The field that is wrong first, and what is wrong with it.

    The field is a dotted path, without the parts in `passed_over`; of an error over several fields it is the
    one that the error names, and else `whole`.
    """
    fault = error.errors()[0]
    place = ".".join(str(part) for part in fault["loc"] if part not in passed_over)
    return fault.get("ctx", {}).get("field") or place or whole, plain_words(fault)

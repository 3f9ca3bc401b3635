"""An `Ask` from the fields that a body gave, with errors in the client's own names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from schemas.commands import Ask
from schemas.errors import InvalidRequest
from services.chassis.plain_words import first_fault
from services.gateway.requests.models import Target

OWN_NAMES = {"raw": "prompt", "embed": "input", "json_schema": "response_format"}
"""What clients call a field of an `Ask`."""


def build(
    fields: dict[str, Any],
    target: Target,
    request_id: str,
    timeout_s: float,
    own_names: Mapping[str, str] = OWN_NAMES,
) -> Ask:
    """The request to whoever the model's name stands for. InvalidRequest names the field that cannot be, as
    `own_names` says that clients call it."""
    try:
        return Ask.model_validate(
            {**fields, **target.ask_fields, "request_id": request_id, "timeout_s": timeout_s}
        )
    except ValidationError as error:
        place, why = first_fault(error, whole="body")
        first, _, rest = place.removeprefix("sampling.").partition(".")
        field = ".".join(part for part in (own_names.get(first, first), rest) if part)
        raise InvalidRequest(f"{field}: {why}", field=field) from error

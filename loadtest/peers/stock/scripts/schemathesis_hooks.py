"""What is sent names a model that is there, nine times of ten: else only its name would be looked at."""

from __future__ import annotations

import random
from typing import Any

import schemathesis

chance = random.Random(7)
ASKED_FIRST = 0.9
ALLOWED = (501, 503)
"""What the gateway does not do, and a mesh that is asked too much: both say so."""


@schemathesis.hook
def map_body(_context: Any, body: Any) -> Any:
    if isinstance(body, dict) and "model" in body and chance.random() < ASKED_FIRST:
        body["model"] = "quick"
    return body


@schemathesis.hook
def after_call(_context: Any, _case: Any, response: Any) -> None:
    if response.status_code in ALLOWED:
        response.status_code = 499

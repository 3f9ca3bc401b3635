"""Bodies made of the description's own schemas, right ones and wrong ones: each operation answers in words.

The long form, with a program that knows more ways: `just fuzz-http`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from services.gateway.description.document import SCHEMAS, document
from services.gateway.description.tests.test_document import routes

SEED = 7
OF_EACH = 4
ASKED = ("ollama", "openai", "anthropic")
"""Dialects whose right bodies change nothing of the mesh; of the others wrong ones are sent."""
NAMED = dict.fromkeys(("model", "name", "source"), "choir-one")
"""What is asked of, or nothing but the name would be looked at."""
TEXTS = ("", "Capital?", "\u0000\u202e", "x" * 2_000, "json", "-1")
ODD: tuple[Any, ...] = (None, True, -1, 2**70, 1e308, 0.1, "", [], [[None]], {"": {"": []}}, *TEXTS)
BROKEN = (b"", b"[]", b"null", b"{", b'{"a": NaN}', b"\xff\xfe", b"[" * 5_000, b'{"model": "choir-one"} x')
SLOW_S = 180.0
SAID = (501, 503)
"""What the gateway does not do, and a mesh that has not what is asked for: both say so."""


def made(schema: Mapping[str, Any], all_: Mapping[str, Any], chance: random.Random, depth: int = 0) -> Any:
    """A value that a schema allows, or nearly does: patterns are not looked at."""
    if "$ref" in schema:
        return made(all_[schema["$ref"].removeprefix(SCHEMAS.format(model=""))], all_, chance, depth)
    for one_of in ("anyOf", "oneOf"):
        if one_of in schema:
            return made(chance.choice(schema[one_of]), all_, chance, depth)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else chance.choice(schema["enum"])
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {})
            wanted = schema.get("required", ())
            left_out = 0.5 + depth / 8
            return {
                name: NAMED[name] if name in NAMED and not depth else made(of, all_, chance, depth + 1)
                for name, of in fields.items()
                if name in wanted or name in NAMED or chance.random() > left_out
            }
        case "array":
            least = schema.get("minItems", 0)
            items = schema.get("items", {})
            return [made(items, all_, chance, depth + 1) for _ in range(max(least, chance.randint(0, 2)))]
        case "integer" | "number" as kind:
            low = schema.get("minimum", schema.get("exclusiveMinimum", -2))
            value = chance.choice((low, low + 1, min(schema.get("maximum", 8), low + 8)))
            return int(value) if kind == "integer" else float(value)
        case "string":
            return chance.choice(TEXTS)
        case "boolean":
            return chance.random() < 0.5
        case "null":
            return None
        case _:
            return chance.choice(ODD)


def spoilt(body: dict[str, Any], schema: Mapping[str, Any], chance: random.Random) -> dict[str, Any]:
    """The same with one field that may be of any kind."""
    return {**body, chance.choice(list(schema["properties"])): chance.choice(ODD)}


@pytest.mark.parametrize("dialect", list(routes()))
async def test_a_body_of_the_description_is_answered_and_so_is_one_that_it_has_not(
    http: httpx.AsyncClient, dialect: str
) -> None:
    told = document(routes())
    schemas = told["components"]["schemas"]
    chance = random.Random(SEED)
    statuses: set[int] = set()
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            if dialect not in operation["tags"] or "requestBody" not in operation:
                continue
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            plain = schemas[schema["$ref"].removeprefix(SCHEMAS.format(model=""))]
            bodies = list(BROKEN)
            for _ in range(OF_EACH if dialect in ASKED else 0):
                right = made(schema, schemas, chance)
                bodies += [as_json(right), as_json(spoilt(right, plain, chance))]
            for body in bodies:
                reply = await http.request(
                    method, path.replace("{model}", "choir-one"), content=body, timeout=SLOW_S,
                    headers={"content-type": "application/json"},
                )  # fmt: skip
                assert reply.status_code < 500 or reply.status_code in SAID, (path, body, reply.text)
                is_page = "text/html" in reply.headers.get("content-type", "")
                assert reply.status_code == 200 or (reply.text if is_page else reply.json()["error"]), path
                statuses.add(reply.status_code)
    assert 400 in statuses and (200 in statuses or dialect not in ("ollama", "openai"))


def as_json(body: dict[str, Any]) -> bytes:
    """A body as it goes on the wire."""
    return json.dumps(body).encode()

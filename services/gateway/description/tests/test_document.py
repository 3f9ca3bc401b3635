"""The description says what is served: no path more, none less, and of each body what checks it."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import httpx
from jsonschema.validators import Draft202012Validator
from starlette.routing import Route

from services.gateway.dashboard.operate.pipelines import PipelinesPage
from services.gateway.description.document import PARAMETER, body_of, document
from services.gateway.http.app import DIALECTS
from services.gateway.http.body import ASKS

CHECKED = re.compile(r"(?:checked\(.*|frame\.said\(request), (\w+)\)\n")
ASKED = re.compile(r"asked\(request, (\w+)\)\n")
WITHOUT_BODY = frozenset(("GET", "HEAD"))


def routes() -> dict[str, list[Route]]:
    """The routes of all dialects; none of them asks the mesh while it is made."""
    context: Any = _Context()
    return {one.name: [r for r in one.routes(context) if isinstance(r, Route)] for one in DIALECTS}


class _Context:
    """Stands where handlers keep their context: anything can be asked of it, and nothing comes of it."""

    def __getattr__(self, _name: str) -> Any:
        return self

    def __call__(self, *_: object, **__: object) -> Any:
        return self


def test_each_path_and_method_that_is_served_is_described_and_no_other() -> None:
    served = {
        (PARAMETER.sub(r"{\1}", route.path), method.lower())
        for of in routes().values()
        for route in of
        for method in (route.methods or set()) - {"HEAD"}
    }
    told = {(path, method) for path, methods in document(routes())["paths"].items() for method in methods}

    assert told == served


def test_a_body_is_described_by_the_model_that_checks_it() -> None:
    undescribed = []
    for of in routes().values():
        for route in of:
            source = inspect.getsource(route.endpoint)
            shares = "self._shard_request(" in source
            shared = inspect.getsource(PipelinesPage._shard_request) if shares else ""
            checks = CHECKED.findall(source + shared)
            body = body_of(route)
            if checks != ([] if body is None else [body.__name__]):
                undescribed.append((route.path, checks, body))

    assert undescribed == []


def test_what_an_address_may_ask_is_described_by_the_model_that_checks_it() -> None:
    undescribed, described = [], []
    for of in routes().values():
        for route in of:
            asks = ASKED.findall(inspect.getsource(route.endpoint))
            model = getattr(route.endpoint, ASKS, None)
            if asks != ([] if model is None else [model.__name__]):
                undescribed.append((route.path, asks, model))
            described += asks
    told = document(routes())["paths"]["/api/distributed/requests"]["get"]["parameters"]

    assert (undescribed, sorted(described)) == ([], ["FiguresQuery", "RequestsQuery"])
    assert {one["name"] for one in told} == {
        "limit",
        "state",
        "model",
        "strategy",
        "tenant",
        "id",
        "within_s",
    }
    assert next(one for one in told if one["name"] == "limit")["schema"]["maximum"] == 1_000


def test_the_document_is_whole_and_its_schemas_are_schemas() -> None:
    told = json.loads(json.dumps(document(routes())))

    schemas = told["components"]["schemas"]
    assert {"MessagesBody", "BatchBody", "CompletionBody"} <= schemas.keys()
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    for ref in re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(told)):
        assert ref in schemas
    operations = [one["operationId"] for methods in told["paths"].values() for one in methods.values()]
    assert len(set(operations)) == len(operations)
    assert all(one["summary"] for methods in told["paths"].values() for one in methods.values())


async def test_a_gateway_tells_it(http: httpx.AsyncClient) -> None:
    told = (await http.get("/openapi.json")).json()

    assert "/v1/chat/completions" in told["paths"]
    assert "/openapi.json" in told["paths"]

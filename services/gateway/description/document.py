"""The OpenAPI document: a path for each route, a schema for each body, both of the code that serves them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from services.gateway.http.body import ASKS, TAKES

PATH = "/openapi.json"
OPENAPI = "3.1.0"
SCHEMAS = "#/components/schemas/{model}"
PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
WITHOUT_OPERATION = frozenset(("HEAD",))


class Description:
    """The document of some routes, by the name of their dialect; it is made when it is first asked for."""

    def __init__(self, routes: Mapping[str, Sequence[BaseRoute]]) -> None:
        self._routes = routes
        self._document: bytes | None = None

    def route(self) -> Route:
        """Where it is served."""
        return Route(PATH, self.get)

    async def get(self, _request: Request) -> Response:
        """The description of all interfaces."""
        if self._document is None:
            self._document = to_json(document(self._routes))
        return Response(self._document, media_type="application/json")


def document(routes: Mapping[str, Sequence[BaseRoute]]) -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    plain = [(name, one) for name, all_ in routes.items() for one in all_ if isinstance(one, Route)]
    refs, schemas = _schemas(body for _, route in plain if (body := body_of(route)) is not None)
    for name, route in plain:
        path = paths.setdefault(PARAMETER.sub(r"{\1}", route.path), {})
        for method in sorted((route.methods or set()) - WITHOUT_OPERATION):
            path.setdefault(method.lower(), _operation(name, route, method, refs))
    return {
        "openapi": OPENAPI,
        "info": {"title": "Choir", "version": version("choir")},
        "tags": [{"name": name} for name in routes],
        "security": [{}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def body_of(route: Route) -> type[BaseModel] | None:
    """The model against which a route checks its body, if it has one."""
    return getattr(route.endpoint, TAKES, None)


def _schemas(models: Iterable[type[BaseModel]]) -> tuple[dict[type[BaseModel], Any], dict[str, Any]]:
    """How each model is referred to, and the schemas of all of them."""
    wanted: list[tuple[type[BaseModel], Literal["validation"]]] = [
        (model, "validation") for model in dict.fromkeys(models)
    ]
    refs, whole = models_json_schema(wanted, ref_template=SCHEMAS)
    return {model: refs[model, mode] for model, mode in wanted}, whole.get("$defs", {})


def _operation(
    dialect: str, route: Route, method: str, refs: Mapping[type[BaseModel], Any]
) -> dict[str, Any]:
    summary = (inspect.getdoc(route.endpoint) or "").split("\n\n")[0].replace("\n", " ")
    operation: dict[str, Any] = {
        "tags": [dialect],
        "summary": summary,
        "operationId": f"{method.lower()}_{re.sub(r'[^a-z0-9]+', '_', route.path.lower()).strip('_')}",
        "responses": {
            "200": {"description": "what was asked for"},
            "default": {"description": "an error, as clients of this interface read it"},
        },
    }
    names = PARAMETER.findall(route.path)
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
    ]
    asked: type[BaseModel] | None = getattr(route.endpoint, ASKS, None)
    if asked is not None:
        told = asked.model_json_schema()["properties"]
        parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in told.items()]
    if parameters:
        operation["parameters"] = parameters
    body = body_of(route)
    if body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": refs[body]}}}
    return operation

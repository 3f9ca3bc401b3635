"""The mesh that is asked: the one that was named, the one that runs here, or else the demo's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from infra.host.demo_mesh import demo_mesh
from schemas.errors import InvalidRequest, MeshUnreachable, UnknownModel
from schemas.replies import ModelSummary
from services.chassis.settings import ServiceSettings, load_settings
from services.client.client import Choir

CLIENT_NAME = "choir-eval"
STARTING = (
    "no mesh runs here: starting the demo mesh, four small models that come with Choir; "
    "it is stopped at the end"
)


@asynccontextmanager
async def open_mesh(url: str | None, say: Callable[[str], None]) -> AsyncIterator[Choir]:
    """A client of the mesh.

    Where nobody said which mesh (`url`, the environment, choir.toml) and none runs on this host, the demo's
    mesh is started, and that is said; it ends with the context. MeshUnreachable if a named one is not there.
    """
    if url is not None or _is_named() or await _one_answers():
        async with Choir(url, name=CLIENT_NAME) as mesh:
            yield mesh
        return
    say(STARTING)
    async with demo_mesh(None) as supervisor:
        for problem in supervisor.problems:
            say(f"demo mesh: {problem}")
        async with Choir(supervisor.url, name=CLIENT_NAME) as mesh:
            yield mesh


async def _one_answers() -> bool:
    """Whether a mesh runs where a client looks for it."""
    try:
        async with Choir(name=CLIENT_NAME) as mesh:
            await mesh.status()
    except MeshUnreachable:
        return False
    return True


def _is_named() -> bool:
    return "url" in load_settings(ServiceSettings).mesh.model_fields_set


def members(
    served: Sequence[ModelSummary], wanted: Sequence[str], max_agents: int | None
) -> tuple[ModelSummary, ...]:
    """The models that are asked: those wanted, else all, at most `max_agents`; UnknownModel for others."""
    by_name = {model.name: model for model in served}
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        raise UnknownModel(
            f"models: nobody serves {', '.join(unknown)}; there are {', '.join(sorted(by_name)) or 'none'}",
            field="models",
            known=tuple(sorted(by_name)),
        )
    chosen = tuple(by_name[name] for name in (wanted or sorted(by_name)))[:max_agents]
    if not chosen:
        raise InvalidRequest("models: the mesh serves no model that could be asked", field="models")
    return chosen

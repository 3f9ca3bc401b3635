"""Checks the model files: there, whole, and of a kind that can be run."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from infra.demo_models import checksums
from infra.demo_models.family import FOLDER
from infra.settings import HostSettings
from schemas.errors import ModelUnusable
from schemas.nodes.model_store import STORE_PREFIX
from services.cli.setup.validation.finding import Finding, ok, warning, wrong
from services.cli.views.tables.overview_tables import size
from services.engine.model.gguf.check import check_model_file
from services.engine.model.gguf.split_files import size_of

LLAMA_CPP = "llama_cpp"
STAGE = "shard_stage"


def check_models(settings: HostSettings) -> Iterator[Finding]:
    """Every model of every agent and stage, and llama.cpp if one needs it."""
    if not settings.agents and not settings.stages:
        yield warning("agents", "none on this host", "add [[agents]] to choir.toml, if any should run here")
    if settings.stages or any(agent.backend == "llama_cpp" for agent in settings.agents):
        yield _llama_cpp()
    for agent in settings.agents:
        for model in agent.models:
            yield _model(model.name, model.path, agent.backend)
    for stage in settings.stages:
        for offered in stage.models:
            yield _model(offered.name, offered.path, STAGE)


def _llama_cpp() -> Finding:
    if importlib.util.find_spec(LLAMA_CPP) is None:
        return wrong("llama.cpp", "llama-cpp-python is not installed", "pip install llama-cpp-python")
    return ok("llama.cpp", "installed")


def _model(name: str, path: Path | None, backend: str) -> Finding:
    what = f"model {name}"
    if path is None:
        return ok(what, f"needs no file ({backend})")
    if str(path).startswith(STORE_PREFIX):
        return ok(what, "comes from the store")
    try:
        header = check_model_file(path)
        if path.parent == FOLDER:
            checksums.verify(path)
    except ModelUnusable as error:
        return wrong(what, error.message, _advice(path))
    return ok(what, f"{header.text('general.architecture')}, {size(size_of(path))}")


def _advice(path: Path) -> str:
    if path.parent == FOLDER:
        return "fetch the file again with the repository, or make it with `just train-models`"
    if not path.exists():
        return f"correct path in section [[agents]], or put the file there: {path.name}"
    return "fetch the file again, or take another one: a GGUF file that llama.cpp runs"

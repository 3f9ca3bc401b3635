"""The servers that the tests of this package ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.demo_models.bench_model import write_bench_model
from infra.demo_models.family import FOLDER
from services.agent.tests.servers.llama_server import LlamaServer, llama_server

CONTEXT_TOKENS = 256
DEMO = "choir-llama"


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two narrow layers with random weights."""
    return write_bench_model(tmp_path_factory.mktemp("models") / "tiny.gguf", layers=2, width=64)


@pytest.fixture(scope="session")
def openai_server(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """llama_cpp.server with the random model and a demo model."""
    models = {"tiny": model_path, DEMO: FOLDER / f"{DEMO}.gguf"}
    with llama_server(tmp_path_factory.mktemp("server"), models, n_ctx=CONTEXT_TOKENS) as server:
        yield server

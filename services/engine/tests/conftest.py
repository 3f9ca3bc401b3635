"""Models and engines for the tests: random weights, written once for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.demo_models.bench_model import write_bench_model
from services.engine import Engine
from services.engine.model.model import Model


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two narrow layers."""
    return write_bench_model(tmp_path_factory.mktemp("models") / "tiny.gguf", layers=2, width=64)


@pytest.fixture(scope="session")
def engine(model_path: Path) -> Iterator[Engine]:
    """An engine with four slots of 512 tokens, shared by the tests that leave it as it is."""
    with Engine.load(model_path, slots=4, context_tokens=512, batch_tokens=64, threads=1) as engine:
        yield engine


@pytest.fixture(scope="session")
def model(model_path: Path) -> Iterator[Model]:
    """The bare model, without an engine around it."""
    model = Model(model_path)
    yield model
    model.close()

"""A model with random weights, whose prompts take a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.demo_models.bench_model import write_bench_model


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two narrow layers."""
    return write_bench_model(tmp_path_factory.mktemp("models") / "tiny.gguf", layers=2, width=64)

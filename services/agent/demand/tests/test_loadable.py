"""What is said of a model before it is loaded."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType

from infra.testing.made_models.random_models import RECIPES, Shape, write_random_model
from schemas.nodes.model_store import HeldModel
from services.agent.demand.loadable import loadable_of
from services.agent.settings import OnDemandSection
from services.engine.model.gguf.check import check_model_file
from services.engine.model.memory.need import memory_need


def test_what_is_too_large_says_of_what_its_memory_is_made(tmp_path: Path) -> None:
    """Given a model whose embeddings are its output matrix too, of which most processors keep a copy."""
    recipe = replace(RECIPES["qwen3"], shape=Shape(512, 8, 64, 8, 512, vocabulary=60_000), layers=2)
    model = write_random_model(tmp_path / "m.gguf", "qwen3", recipe, matrices=GGMLQuantizationType.MXFP4)
    size_bytes = model.stat().st_size
    held = HeldModel(name="m", file="m.gguf", paths=(str(model),), sha256="a" * 64, size_bytes=size_bytes)
    need = memory_need(check_model_file(model), size_bytes, 2, None)
    fits = loadable_of(held, OnDemandSection(), need.total_bytes)
    assert fits.fault is None and fits.need_bytes == need.total_bytes
    fault = loadable_of(held, OnDemandSection(), need.total_bytes - 1).fault
    assert fault is not None
    total_gb, budget_gb, *parts_gb = map(float, re.findall(r"([\d.]+) GB", fault.message))
    assert total_gb == budget_gb == pytest.approx(sum(parts_gb), abs=0.03)
    assert len(parts_gb) == (4 if need.copies_bytes else 3), fault.message

"""What the library was compiled with is read from what it says of itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import pytest

from infra.testing.plugin import REPOSITORY
from schemas.requests.sampling import Sampling
from services.engine import Engine
from services.engine.model.build import extra_buffers_are_safe, features


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    features.cache_clear()
    yield monkeypatch
    features.cache_clear()


def test_what_is_compiled_in_is_said_with_a_one(says: pytest.MonkeyPatch) -> None:
    words = b"CPU : AVX2 = 1 | FMA = 0 | AMX_INT8 = 1 | OPENMP = 1 | "
    says.setattr(llama_cpp, "llama_print_system_info", lambda: words)
    assert features() == {"AVX2", "AMX_INT8", "OPENMP"}
    assert not extra_buffers_are_safe()


def test_without_amx_weights_may_be_kept_in_any_form(says: pytest.MonkeyPatch) -> None:
    says.setattr(llama_cpp, "llama_print_system_info", lambda: b"CPU : AVX2 = 1 | REPACK = 1 | ")
    assert extra_buffers_are_safe()


def test_without_openmp_or_with_it_threads_neither_sleep_nor_spin_for_ever() -> None:
    """Given a process in which nothing is set, and two in which somebody has decided."""
    names = "('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')"
    code = f"import services.engine, os; print(*map(os.environ.get, {names}))"
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}

    def set_by(**own: str) -> str:
        command = [sys.executable, "-c", code]
        return subprocess.check_output(command, env={**bare, **own}, text=True, cwd=REPOSITORY).strip()

    assert set_by() == "2000 None"
    assert set_by(GOMP_SPINCOUNT="7") == "7 None"
    assert set_by(OMP_WAIT_POLICY="active") == "None active"


def test_a_prompt_of_several_tokens_is_read_whatever_the_processor_has(model_path: Path) -> None:
    with Engine.load(model_path, slots=1, context_tokens=64, threads=1) as engine:
        finished = engine.generate("several tokens", Sampling(max_tokens=2))
    assert finished.prompt_tokens > 1
    assert finished.error is None

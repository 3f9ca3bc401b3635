from __future__ import annotations

from pathlib import Path

from services.engine import Engine


def test_a_model_is_described(engine: Engine, model_path: Path) -> None:
    info = engine.info
    assert (info.name, info.architecture, info.layers) == ("choir-bench", "llama", 2)
    assert info.size_bytes == model_path.stat().st_size
    assert info.parameters > 100_000
    assert info.has_chat_template
    assert "Q8_0" in info.description

"""Bodies of requests."""

from __future__ import annotations

from typing import Any


def ask(model: str, text: str = "What is the capital of France?", **fields: Any) -> dict[str, Any]:
    """The shortest body that there is."""
    return {
        "model": model,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": text}],
        **fields,
    }

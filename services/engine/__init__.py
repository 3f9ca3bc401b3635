"""llama.cpp as a library: batched generation with one model, for the services that run one.

Each name is imported when it is used: who only reads the header of a file does without llama.cpp.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Read by OpenMP when the library is loaded, so it has to stand before the imports. llama.cpp as this project
# builds it has no OpenMP, and does not look at it. See "Threads" in README.md.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

if TYPE_CHECKING:
    from services.engine.embedder import Embedded
    from services.engine.engine import Engine
    from services.engine.model.gguf.check import check_model_file
    from services.engine.model.info import EngineStats, ModelInfo
    from services.engine.sequence.generation import (
        Finished,
        Generation,
        RankedToken,
        TokenEvent,
        TokenLogprob,
    )
    from services.engine.sequence.prompt import Chat, ChatMessage, Message, Prompt, TokenPrompt

WHERE = {
    "Chat": "sequence.prompt",
    "ChatMessage": "sequence.prompt",
    "Embedded": "embedder",
    "Engine": "engine",
    "EngineStats": "model.info",
    "Finished": "sequence.generation",
    "Generation": "sequence.generation",
    "Message": "sequence.prompt",
    "ModelInfo": "model.info",
    "Prompt": "sequence.prompt",
    "RankedToken": "sequence.generation",
    "TokenEvent": "sequence.generation",
    "TokenLogprob": "sequence.generation",
    "TokenPrompt": "sequence.prompt",
    "check_model_file": "model.gguf.check",
}
__all__ = [
    "Chat",
    "ChatMessage",
    "Embedded",
    "Engine",
    "EngineStats",
    "Finished",
    "Generation",
    "Message",
    "ModelInfo",
    "Prompt",
    "RankedToken",
    "TokenEvent",
    "TokenLogprob",
    "TokenPrompt",
    "check_model_file",
]


def __getattr__(name: str) -> Any:
    """The module that has a name is imported when the name is first asked for (PEP 562)."""
    if name not in WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{WHERE[name]}"), name)

"""llama.cpp as a library: batched generation with one model, for the services that run one."""

import os

# Read by OpenMP when the library is loaded, so it has to stand before the imports. llama.cpp as this project
# builds it has no OpenMP, and does not look at it. See "Threads" in README.md.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

from services.engine.embedder import Embedded
from services.engine.engine import Engine
from services.engine.model.gguf_check import check_model_file
from services.engine.model.info import EngineStats, ModelInfo
from services.engine.sequence.generation import Finished, Generation, RankedToken, TokenEvent, TokenLogprob
from services.engine.sequence.prompt import Chat, ChatMessage, Message, Prompt, TokenPrompt

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

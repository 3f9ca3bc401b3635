"""llama.cpp as a library: batched generation with one model, for the services that run one."""

import os

# Read by OpenMP when llama.cpp's library is loaded, so it has to stand before the imports. Threads that
# spin while they wait bring a shared host to a standstill: see "Threads" in README.md.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from services.engine.engine import Engine
from services.engine.generation import Finished, Generation, RankedToken, TokenEvent, TokenLogprob
from services.engine.gguf_check import check_model_file
from services.engine.info import EngineStats, ModelInfo
from services.engine.prompt import ChatMessage, Message, Prompt

__all__ = [
    "ChatMessage",
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
    "check_model_file",
]

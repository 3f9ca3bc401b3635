"""An agent whose llama.cpp does as `FAULT` says at its first batch: `raises`, or `hangs` for good."""

from __future__ import annotations

import ctypes
import os

from services.agent.service import Agent
from services.agent.settings import AgentSettings
from services.chassis.process.runner import run_service
from services.engine.decode.batch import Batch
from services.engine.decode.context import Context

FOR_GOOD_S = 86_400


def fail(_context: Context, _batch: Batch) -> int:
    """In the place of Context.decode."""
    if os.environ["FAULT"] == "hangs":
        ctypes.CDLL(None).sleep(FOR_GOOD_S)
    raise OSError("llama.cpp is not what it was")


if __name__ == "__main__":
    Context.decode = fail  # type: ignore[method-assign,assignment]
    run_service("agent", AgentSettings, lambda settings, _identity: Agent(settings.agent, settings.workers))

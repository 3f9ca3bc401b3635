"""`python -m services.shard_stage.tests.helpers.slow_stage`: a stage whose layers take as long as is told.

How long lies in its cache folder under its name, and is read before each step: see slow().
"""

from __future__ import annotations

import json
import os
import runpy
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from services.shard_stage.pipeline.step_executor import Outgoing, Piece, StepExecutor


def slow(cache: Path, stage: str, layer_ms: float) -> None:
    """From the next step on a layer of this stage takes so many milliseconds more for each row."""
    cache.mkdir(parents=True, exist_ok=True)
    written = cache / f"{stage}.ms.new"
    written.write_text(str(layer_ms))
    written.replace(cache / f"{stage}.ms")


def _layer_ms() -> float:
    section = json.loads(os.environ["CHOIR_STAGE"])
    with suppress(OSError):
        return float((Path(section["cache"]) / f"{section['name']}.ms").read_text())
    return 0.0


_run = StepExecutor.run


def _run_slowly(self: StepExecutor, pieces: Sequence[Piece]) -> list[Outgoing]:
    origin = self.context.origin
    rows = sum(len(piece.inputs) for piece in pieces)
    time.sleep(_layer_ms() / 1e3 * (origin.end_layer - origin.first_layer) * rows)
    return _run(self, pieces)


if __name__ == "__main__":
    StepExecutor.run = _run_slowly  # type: ignore[method-assign]
    runpy.run_module("services.shard_stage", run_name="__main__", alter_sys=True)

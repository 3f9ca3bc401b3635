"""What a task of a batch is said to have taken: the time of its questions, not of waiting for its turn."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from typing import Any, cast

import pytest

from schemas.replies import Answer, Result
from services.cli.batch.models import Models
from services.cli.batch.questions import Inquiry, Questions
from services.cli.batch.stopwatch import Stopwatch
from services.client.client import Choir


def test_questions_that_overlap_count_once_and_pauses_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter((10.0, 13.0, 20.0, 21.5))
    monkeypatch.setattr("services.cli.batch.stopwatch.time.monotonic", lambda: next(now))
    asking = Stopwatch()
    with asking.running(), asking.running():
        pass
    with asking.running():
        pass
    assert asking.seconds == 4.5


class HeldMesh:
    """Answers a question when it is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.heard, self.let_go = asyncio.Event(), asyncio.Event()

    async def ask(self, text: str, **_: Any) -> Result:
        """One answer."""
        self.asked.append(text)
        self.heard.set()
        await self.let_go.wait()
        answer = Answer(request_id="r", agent="a", model="m", instance="i", finish_reason="stop")
        return Result(
            request_id="r", fingerprint="f", topology="single", text="x", answers=(answer,),
            accepted_at_s=0.0, completed_at_s=0.0,
        )  # fmt: skip


async def test_a_question_that_waits_in_the_client_takes_no_time_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given room for one question at a time
    mesh = HeldMesh()
    questions = Questions(cast(Choir, mesh), Models(cast(Choir, mesh), max_concurrent=1))
    first, second = (Inquiry("run", "m", 1, {}, Stopwatch()) for _ in range(2))
    begun: list[Stopwatch] = []
    running = Stopwatch.running

    def noted(watch: Stopwatch) -> AbstractContextManager[None]:
        begun.append(watch)
        return running(watch)

    monkeypatch.setattr(Stopwatch, "running", noted)
    # When two are asked
    waiting = [asyncio.create_task(questions.ask(each, name)) for each, name in ((first, "1"), (second, "2"))]
    await mesh.heard.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    # Then only the clock of the one that was sent runs
    assert (mesh.asked, begun) == (["1"], [first.asking])
    mesh.let_go.set()
    await asyncio.gather(*waiting)
    assert begun == [first.asking, second.asking]

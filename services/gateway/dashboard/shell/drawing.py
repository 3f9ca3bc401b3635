"""Charts, drawn by a process of their own: what they are made with takes a second and seventy megabytes to
load, and a gateway that nobody asks for a chart does without."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from schemas.errors import InternalError
from services.chassis.logs import get_logger

MODULE = "analysis.charts.drawing.server"
PATIENCE_S = 60.0
IDLE_S = 120.0
"""So long the process waits for more to draw."""
LONGEST_LINE = 64 * 1024 * 1024

log = get_logger("gateway.drawing")


class Drawing:
    """Asks the process, one question at a time; it is started when there is one."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._turn = asyncio.Lock()
        self._asked = 0
        self._bundle: bytes | None = None

    async def chart(self, name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The Vega-Lite document of a chart of `analysis`, of the rows that it is drawn from.

        Raises InternalError if it cannot be drawn.
        """
        return await self._spec({"chart": name, "rows": rows})

    async def of_query(self, name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The chart of `analysis` that is drawn from a query's rows; of others the rows as they come.

        Raises InternalError if it cannot be drawn.
        """
        return await self._spec({"query": name, "rows": rows})

    async def _spec(self, question: Mapping[str, Any]) -> dict[str, Any]:
        spec: dict[str, Any] = (await self._ask(question))["spec"]
        return spec

    async def bundle(self) -> bytes:
        """Vega as one script, of the package that carries it; made once."""
        if self._bundle is None:
            self._bundle = str((await self._ask({"bundle": True}))["script"]).encode()
        return self._bundle

    async def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        async with self._turn:
            self._asked += 1
            try:
                async with asyncio.timeout(PATIENCE_S):
                    reply = await self._exchange(to_json(question))
            except BaseException as error:
                await self.close()  # what it still says would be taken for the answer to something else
                if isinstance(error, TimeoutError | OSError | ValueError | asyncio.IncompleteReadError):
                    raise InternalError(
                        "the chart could not be drawn; the gateway's log says more"
                    ) from error
                raise
        asyncio.get_running_loop().call_later(IDLE_S, self._end_if_idle, self._asked)
        if "problem" in reply:
            raise InternalError(f"the chart could not be drawn: {reply['problem']}")
        return reply

    async def _exchange(self, question: bytes) -> dict[str, Any]:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                # -P: the folder in which the gateway was started may have a folder `analysis` of its own.
                *(sys.executable, "-P", "-m", MODULE),
                stdin=PIPE,
                stdout=PIPE,
                limit=LONGEST_LINE,
            )
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(question + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readuntil(b"\n")
        reply: dict[str, Any] = from_json(line)
        return reply

    def _end_if_idle(self, asked: int) -> None:
        """Nothing was asked meanwhile: the process ends as its input does."""
        if asked == self._asked and self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process = None

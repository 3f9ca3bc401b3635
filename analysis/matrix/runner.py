"""Asks the cells of a matrix, and keeps what comes back at once.

A request that fails is kept with its error, and is one measurement less. What the mesh cannot take yet is
asked again; a model that nobody serves any more is waited for a little while, and then its cell has failed.
If the mesh itself goes away the run ends with the error, and can be resumed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

from analysis.matrix.folder import MatrixFolder
from analysis.matrix.plan import Cell, ask, request_id
from analysis.matrix.record import Record
from schemas.commands import Ask
from schemas.errors import (
    BrokerUnavailable,
    ChoirError,
    MeshUnreachable,
    NotReady,
    Overloaded,
    UnknownModel,
)
from schemas.replies import Result
from services.client.client import Choir

NOT_TAKEN = (BrokerUnavailable, NotReady, Overloaded)
MESH_PATIENCE_S = 60.0
MODEL_PATIENCE_S = 10.0
"""Time for a supervisor to start an agent again."""
PAUSE_S = 0.5

Came = Callable[[Record], None]


class MatrixRunner:
    """Asks cells, at most `concurrency` of them at a time."""

    def __init__(self, mesh: Choir, folder: MatrixFolder, concurrency: int, came: Came) -> None:
        self._mesh = mesh
        self._folder = folder
        self._concurrency = concurrency
        self._came = came

    async def run(self, cells: Sequence[Cell]) -> None:
        """Asks those that are not done. ChoirError if the mesh cannot be asked any more."""
        run_id = self._folder.run.run_id
        waiting = iter([cell for cell in cells if request_id(run_id, cell) not in self._folder.records])
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(self._work(waiting))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures

    async def _work(self, waiting: Iterator[Cell]) -> None:
        for cell in waiting:
            record = await self._measure(cell)
            self._folder.keep(record.request_id, record)
            self._came(record)

    async def _measure(self, cell: Cell) -> Record:
        request = ask(self._folder.run.run_id, cell, self._folder.run.options)
        identity = request.request_id or ""
        try:
            return Record(request_id=identity, cell=cell, result=await self._result(request))
        except (*NOT_TAKEN, MeshUnreachable):
            raise
        except ChoirError as error:
            return Record(request_id=identity, cell=cell, error=error.body(identity))

    async def _result(self, request: Ask) -> Result:
        started_s = time.monotonic()
        while True:
            try:
                async for reply in self._mesh.follow(request):
                    if isinstance(reply, Result):
                        return reply
            except (*NOT_TAKEN, UnknownModel) as error:
                patience_s = MODEL_PATIENCE_S if isinstance(error, UnknownModel) else MESH_PATIENCE_S
                if time.monotonic() - started_s > patience_s:
                    raise
                await asyncio.sleep(error.retry_after_s or PAUSE_S)

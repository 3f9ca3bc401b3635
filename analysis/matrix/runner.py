"""Asks the cells of a matrix that its folder does not have yet.

A request that fails is kept with its error, and is one measurement less. What the mesh cannot take yet is
asked again; a model that nobody serves any more is waited for a little while, and then its cell has failed.
If the mesh itself goes away the run ends with the error, and can be resumed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

from analysis.matrix.folder import MatrixFolder
from analysis.matrix.plan import Cell, ask, request_id
from analysis.matrix.record import Record
from schemas.errors import (
    BrokerUnavailable,
    ChoirError,
    MeshUnreachable,
    NotReady,
    Overloaded,
    UnknownModel,
)
from services.client.bulk.runner import run_bulk, until_taken
from services.client.client import Choir

NOT_TAKEN = (BrokerUnavailable, NotReady, Overloaded)
MESH_PATIENCE_S = 60.0
MODEL_PATIENCE_S = 10.0
"""Time for a supervisor to start an agent again."""
PATIENCE_S = dict.fromkeys(NOT_TAKEN, MESH_PATIENCE_S) | {UnknownModel: MODEL_PATIENCE_S}


class MatrixRunner:
    """Asks cells, at most `concurrency` of them at a time."""

    def __init__(self, mesh: Choir, folder: MatrixFolder, concurrency: int) -> None:
        self._mesh = mesh
        self._folder = folder
        self._concurrency = concurrency

    def run(self, cells: Iterable[Cell]) -> AsyncGenerator[Record, None]:
        """Asks those that are not done. ChoirError if the mesh cannot be asked any more."""
        run_id = self._folder.run.run_id
        return run_bulk(
            cells,
            self._measure,
            self._folder,
            lambda cell: request_id(run_id, cell),
            lambda: self._concurrency,
        )

    async def _measure(self, cell: Cell) -> Record:
        request = ask(self._folder.run.run_id, cell, self._folder.run.options)
        identity = request.request_id or ""
        try:
            result = await until_taken(lambda: self._mesh.result_of(request), PATIENCE_S)
        except (*NOT_TAKEN, MeshUnreachable):
            raise
        except ChoirError as error:
            return Record(request_id=identity, cell=cell, error=error.body(identity))
        return Record(request_id=identity, cell=cell, result=result)

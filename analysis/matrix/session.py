"""A matrix from its options to a folder with a CSV and two charts."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

from analysis.charts.heatmaps import write_heatmaps
from analysis.matrix.averages import MatrixReport, pair_averages
from analysis.matrix.folder import CSV_FILE, MatrixFolder
from analysis.matrix.options import MatrixOptions
from analysis.matrix.plan import cells
from analysis.matrix.record import row
from analysis.matrix.runner import MatrixRunner
from schemas.errors import UnknownModel
from services.client.bulk.progress import Reporter
from services.client.client import Choir

CLIENT_NAME = "choir-matrix"


async def measure(
    options: MatrixOptions, out: Path, concurrency: int, progress: Reporter, *, url: str | None = None
) -> MatrixReport:
    """Asks what `out` does not hold yet, writes its CSV and its charts, and says what it came to.

    The charts are written however the run ends, so that one that was cut off can be looked at. Raises
    UnknownModel before anything is asked if nobody serves one of the models.
    """
    folder = MatrixFolder.open(out, options)
    wanted = cells(options)
    with folder:
        try:
            async with Choir(url, name=CLIENT_NAME) as mesh:
                await _check_models(mesh, options)
                measured = MatrixRunner(mesh, folder, concurrency).run(wanted)
                with progress.phase("cells", len(wanted), len(folder.records)) as advance:
                    async with aclosing(measured):
                        async for record in measured:
                            advance(record.error is not None)
        except asyncio.CancelledError:
            progress.say(f"interrupted: {len(folder.records)} of {len(wanted)} chains are measured")
            raise
        finally:
            report = conclude(folder)
    progress.say(f"{folder.path / CSV_FILE}, {', '.join(report.charts)}")
    return report


async def _check_models(mesh: Choir, options: MatrixOptions) -> None:
    known = tuple(model.name for model in await mesh.models())
    for field in ("generators", "summarizers"):
        for name in getattr(options, field):
            if name not in known:
                raise UnknownModel(
                    f"{field}: no live agent serves {name!r}; known: {', '.join(known) or 'none'}",
                    field=field,
                    known=known,
                )


def conclude(folder: MatrixFolder) -> MatrixReport:
    """Writes the charts of what there is."""
    pairs = pair_averages([row(record) for record in folder.records.values()])
    measured = any(pair.total_time_s is not None for pair in pairs)
    charts = write_heatmaps(pairs, folder.path) if measured else ()
    return MatrixReport(folder=str(folder.path), charts=tuple(path.name for path in charts), pairs=pairs)

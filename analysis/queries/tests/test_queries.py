"""Every shipped query, asked over a small day that passed through the real ingest, against its golden result.

`python -m analysis.queries.tests.golden_results` writes the golden files anew: look at the difference.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import duckdb
import pytest
import pytest_asyncio
from nats.aio.client import Client

from analysis.queries.__main__ import chosen, from_parquet
from analysis.queries.tests.day import a_day
from analysis.queries.tests.golden_results import GOLDEN, PARAMETERS, document
from infra.testing.mesh import eventually, open_mesh
from schemas.errors import ConfigurationError, InvalidRequest
from services.client.client import Choir
from services.client.queries.query_file import SHIPPED, read, shipped
from services.metrics.service import Metrics
from services.metrics.settings import VIEWS_FOLDER, MetricsSection
from services.metrics.sql import __main__ as schema
from services.metrics.tests.mesh import fill, has

NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))


@pytest_asyncio.fixture
async def choir(mesh_url: str, connection: Client, tmp_path: Path) -> AsyncIterator[Choir]:
    """A client of an event database that has the day."""
    service = Metrics(MetricsSection(folder=tmp_path / "metrics"))
    await service.start(open_mesh(connection, "metrics"))
    count = await fill(connection, a_day())
    async with Choir(mesh_url) as client:
        await eventually(lambda: has(client, "events", count))
        yield client
    await service.stop()


async def test_every_query_gives_its_golden_result_over_choir_sql(choir: Choir) -> None:
    queries = chosen(NAMES)
    for name, query in queries.items():
        rows = await choir.sql(query.statement, query.values(PARAMETERS.get(name, {})))
        assert document(rows) == json.loads((GOLDEN / f"{name}.json").read_text()), name


@pytest.mark.soak
async def test_the_same_queries_give_the_same_from_the_parquet_files(
    mesh_url: str, connection: Client, tmp_path: Path
) -> None:
    service = Metrics(MetricsSection(folder=tmp_path / "metrics"))
    await service.start(open_mesh(connection, "metrics"))
    count = await fill(connection, a_day())
    async with Choir(mesh_url) as client:
        await eventually(lambda: has(client, "events", count))
    await service.stop()
    for name, query in chosen(NAMES).items():
        found = from_parquet(tmp_path / "metrics" / "parquet", {name: query}, PARAMETERS.get(name, {}))
        assert document(found[name]) == json.loads((GOLDEN / f"{name}.json").read_text()), name


async def test_the_views_for_people_have_a_row_for_everything(choir: Choir) -> None:
    counts = {
        "requests": 12,
        "tasks": 15,
        "decisions": 6,
        "stages": 8,
        "cut_moves": 1,
        "nodes": 2,
        "errors": 5,
        "events": len(a_day()),
    }
    for view, count in counts.items():
        assert (await choir.sql(f"SELECT count(*) FROM {view}")).rows == ((count,),), view
    chain = await choir.sql("SELECT status, total_ms, models FROM requests WHERE request_id = 'chain-0'")
    assert chain.rows == (("answered", 700.0, ["blue", "red"]),)
    late = await choir.sql("SELECT status, error_code FROM requests WHERE request_id = 'late-0'")
    assert late.rows == (("failed", "deadline_exceeded"),)
    judged = await choir.sql(
        "SELECT was_right FROM decisions WHERE request_id = 'ensemble-0' ORDER BY strategy"
    )
    assert judged.rows == ((False,), (True,))


@pytest.mark.parametrize("path", SHIPPED.values(), ids=lambda path: path.stem)
def test_every_query_says_what_it_asks_takes_and_gives(path: Path) -> None:
    text = path.read_text()
    assert read(path).question and "-- columns" in text
    for parameter in read(path).parameters:
        assert f"${parameter.name}" in text


@pytest.mark.parametrize("path", sorted(VIEWS_FOLDER.glob("*.sql")), ids=lambda path: path.stem)
def test_every_view_says_what_it_asks_and_gives(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("-- question: ") and "-- columns:" in text


def test_a_parameter_that_is_wrong_is_named() -> None:
    query = shipped("slowest_requests")
    assert query.values({"count": "3"})["count"] == 3
    for given in ({"count": "three"}, {"nosuch": "1"}):
        with pytest.raises(InvalidRequest) as error:
            query.values(given)
        assert error.value.field in given
    with pytest.raises(InvalidRequest, match="request_id"):
        shipped("waterfall").values({})


def test_a_folder_without_parquet_files_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Parquet"):
        from_parquet(tmp_path, chosen(["activity"]), {})


def test_the_schema_that_people_read_is_what_the_models_say() -> None:
    """After a change of an event: `python -m services.metrics.sql`."""
    assert schema.FILE.read_text(encoding="utf-8") == schema.text()
    with duckdb.connect() as database:
        database.execute(schema.text())

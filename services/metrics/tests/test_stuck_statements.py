"""A tenant whose statement has ended the service does not end it again at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from nats.aio.client import Client

from schemas.errors import QueryRefused
from schemas.replies import ErrorReply
from schemas.requests.queries import Rows, Sql
from schemas.subjects import LOCAL_TENANT, SQL, door
from services.chassis.tests.mesh import open_mesh
from services.metrics.query.stuck import FILE_NAME, SHUT_OUT_S, TOLD_S, StuckStatements
from services.metrics.service import Metrics
from services.metrics.settings import MetricsSection

ONE = Sql(statement="SELECT 1", parameters={}).to_bytes()


def test_what_ended_the_service_is_known_after_its_start_for_a_while(tmp_path: Path) -> None:
    now_s = 1_000_000.0
    StuckStatements(tmp_path, lambda: now_s).note("alice")
    known = StuckStatements(tmp_path, lambda: now_s)
    with pytest.raises(QueryRefused, match=r"the tenant alice could not be cut off.* in 600 s"):
        known.check("alice")
    known.check("bob")
    assert known.problem is not None and "alice" in known.problem
    now_s += SHUT_OUT_S
    known.check("alice")
    now_s += TOLD_S - SHUT_OUT_S
    assert known.problem is None


def test_a_note_that_cannot_be_read_or_written_ends_nothing(tmp_path: Path) -> None:
    for content in ("", "{", "[]", '{"alice": "late"}', "\x00"):
        (tmp_path / FILE_NAME).write_text(content)
        StuckStatements(tmp_path).check("alice")
    StuckStatements(tmp_path / "nowhere").note("alice")


async def test_a_tenant_waits_after_such_a_statement_and_who_operates_the_mesh_does_not(
    connection: Client, tmp_path: Path
) -> None:
    section = MetricsSection(folder=tmp_path / "metrics")
    section.folder.mkdir()
    for tenant in ("alice", LOCAL_TENANT):
        StuckStatements(section.folder).note(tenant)
    service = Metrics(section)
    await service.start(open_mesh(connection, "metrics"))
    refused = await connection.request(door("alice", SQL), ONE, timeout=180)
    assert ErrorReply.model_validate_json(refused.data).error.code == "query_refused"
    for tenant in ("bob", LOCAL_TENANT):
        answered = await connection.request(door(tenant, SQL), ONE, timeout=180)
        assert Rows.read(answered.data).rows == ((1,),), tenant
    await service.stop()

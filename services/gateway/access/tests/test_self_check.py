"""A gateway that would let in whoever shows nothing does not start."""

from __future__ import annotations

import pytest
from nats.aio.client import Client

from infra.testing.plugin import SpawnService
from schemas.errors import InternalError
from services.gateway.access.self_check import check_locked
from services.gateway.http.app import build_app
from services.gateway.http.context import GatewayContext
from services.gateway.settings import GatewaySection
from services.gateway.tests.serving import events_of, inside


@pytest.mark.parametrize("required", [True, False])
async def test_only_an_application_that_refuses_passes(live_mesh: str, required: bool) -> None:
    async with inside(live_mesh) as (mesh, connection):
        section = GatewaySection(keys_required=required)
        app = build_app(GatewayContext(mesh, section, connection, events_of(connection)))
        if required:
            await check_locked(app)
        else:
            with pytest.raises(InternalError, match="answered 200 without one"):
                await check_locked(app)


async def test_a_gateway_that_wants_keys_starts(connection: Client, spawn_service: SpawnService) -> None:
    env = {"CHOIR_GATEWAY__PORT": "0", "CHOIR_GATEWAY__KEYS_REQUIRED": "true"}
    await spawn_service("gateway", "gateway-1", env=env).wait_ready(connection)

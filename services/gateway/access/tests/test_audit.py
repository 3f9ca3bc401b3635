"""Whoever changes the mesh is told of in its events: who, by which key, when, what, and whether it came to
pass."""

from __future__ import annotations

import time
from typing import Any

import httpx

from infra.testing.mesh import eventually
from schemas.nodes.loading import ManageLoaded
from schemas.requests.keys import KEY_SCOPES, ManageKeys
from schemas.requests.tenants import ManageTenants
from services.client.client import Choir
from services.gateway.access.tests.conftest import MakeKey, bearer, refused_with

ACTS = """
SELECT endpoint, action, target, tenant, key, error_code, service FROM mesh_changed
WHERE "at" > make_timestamp(($since_s * 1e6)::BIGINT) ORDER BY "at"
"""
LABEL = "from the test"
NEW = {"label": LABEL, "scopes": ["models"], "days": 1}
WORKER = {"id": "audited-1", "type": "lm_studio", "host": "127.0.0.1", "port": 9, "model": "beta"}


async def test_each_change_of_the_mesh_is_an_event_with_who_made_it(
    live_mesh: str, locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    secret = await make_key(scopes=KEY_SCOPES)
    operator, since_s = bearer(secret), time.time()

    # Given acts over HTTP by a key: some come to pass, others are refused
    made = await locked.post("/dashboard/actions/keys/add", headers=operator, json=NEW)
    assert made.status_code == 200, made.text
    async with Choir(live_mesh) as mesh:
        known = {key.label: key.id for key in await mesh.keys(ManageKeys())}
        new = known[LABEL]
        for action in ("revoke", "remove"):
            body = {"id": new, "action": action}
            ended = await locked.post("/dashboard/actions/keys/end", headers=operator, json=body)
            assert ended.status_code == 200, ended.text
        added = await locked.post("/api/distributed/workers", headers=operator, json=WORKER)
        removed = await locked.delete("/api/distributed/workers/audited-1", headers=operator)
        gone = await locked.delete("/api/distributed/workers/audited-1", headers=operator)
        assert (added.status_code, removed.status_code, gone.status_code) == (201, 200, 404)
        # And over NATS, without one
        await refused_with("unknown_model", mesh.load(ManageLoaded(action="load", model="nobody")))
        await refused_with("invalid_request", mesh.tenants(ManageTenants(action="revoke", name="nobody")))
        await mesh.keys(ManageKeys())

        # Then each is told of once, and those that only looked are not
        acts: list[Any] = []

        async def told() -> bool:
            acts[:] = (await mesh.sql(ACTS, {"since_s": since_s})).rows
            return len(acts) >= 8

        await eventually(told)
    whose = {act[4] for act in acts[:6]}
    assert len(whose) == 1 and secret.startswith(f"choir-{whose.pop()}-")
    assert sorted([(*act[:4], *act[5:]) for act in acts], key=str) == sorted(
        [
            ("choir.keys", "add", new, "local", None, "router"),
            ("choir.keys", "revoke", new, "local", None, "router"),
            ("choir.keys", "remove", new, "local", None, "router"),
            ("choir.worker", "add", "audited-1", "local", None, "router"),
            ("choir.worker", "remove", "audited-1", "local", None, "router"),
            ("choir.worker", "remove", "audited-1", "local", "unknown_worker", "router"),
            ("choir.load", "load", "nobody", "local", "unknown_model", "router"),
            ("choir.tenants", "revoke", "nobody", "local", "invalid_request", "supervisor"),
        ],
        key=str,
    )
    assert [act[4] for act in acts[6:]] == [None, None]

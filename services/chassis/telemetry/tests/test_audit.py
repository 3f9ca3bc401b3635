"""Whose key an event names of what changes the mesh: one that was found to be right, and no other."""

from __future__ import annotations

import time
from typing import NamedTuple

from nats.aio.client import Client

from infra.testing.mesh import DEADLINE_S
from schemas import subjects
from schemas.events import MeshChanged
from schemas.nodes.model_store import ManageStore, StoreReply
from schemas.replies import ErrorReply
from schemas.requests.keys import ApiKey, KeyScope, KeysReply, ManageKeys, digest_of, new_secret
from schemas.subjects import LOCAL_TENANT
from services.chassis.identity import Identity
from services.chassis.nats.bucket import Bucket, messages
from services.chassis.nats.endpoints import Caller, Endpoints
from services.chassis.telemetry.events import EventLog

VICTIM = "victim"
OPENS: tuple[KeyScope, ...] = ("operate",)


class Said(NamedTuple):
    """Of an event: the key that it names, and why it came to nothing."""

    key: str | None
    code: str | None


async def key_with(client: Client, key_id: str, *scopes: KeyScope, ended: bool = False) -> str:
    """The secret of a new key, which is good or has `ended`."""
    secret, now_s = new_secret(key_id), time.time()
    key = ApiKey(
        id=key_id, digest=digest_of(secret), ending=secret[-4:], scopes=scopes, created_at_s=now_s,
        expires_at_s=now_s - 1 if ended else None,
    )  # fmt: skip
    await Bucket(client, subjects.KEYS_BUCKET, messages(ApiKey)).put(subjects.api_key(key_id), key)
    return secret


async def done(_request: ManageKeys, caller: Caller) -> None:
    await caller.send(KeysReply(keys=()))


async def stored(_request: ManageStore, caller: Caller) -> None:
    await caller.send(StoreReply())


async def test_an_event_names_a_key_whose_secret_was_shown_and_no_other(connection: Client) -> None:
    victim = await key_with(connection, VICTIM, *OPENS)
    looks = await key_with(connection, "looks", "observe")
    over = await key_with(connection, "over", *OPENS, ended=True)
    events = EventLog(connection, Identity("router", "router-1"))
    endpoints = Endpoints(connection, Identity("router", "router-1"), "for a test", events=events)
    await endpoints.start()
    await endpoints.add(subjects.doors(subjects.KEYS), ManageKeys, done)
    await endpoints.add(subjects.doors(subjects.STORE), ManageStore, stored)
    told = await connection.subscribe(subjects.event("router", "mesh_changed"))
    revokes = ManageKeys(action="revoke", id="x").to_bytes()
    keyed, plain = (at(LOCAL_TENANT, subjects.KEYS) for at in (subjects.keyed_door, subjects.door))

    async def act(where: str, secret: str | None, body: bytes = revokes) -> Said:
        headers = {subjects.KEY_HEADER: VICTIM}
        if secret is not None:
            headers[subjects.API_KEY_HEADER] = secret
        reply = await connection.request(where, body, timeout=DEADLINE_S, headers=headers)
        event = MeshChanged.read((await told.next_msg(timeout=DEADLINE_S)).data)
        code = None if event.error is None else event.error.code
        assert code == (ErrorReply.read(reply.data).error.code if b'"error"' in reply.data else None)
        return Said(event.key, code)

    try:
        # A name alone is not believed, whoever says it
        for nothing in (None, "", new_secret(VICTIM), digest_of(victim), f"choir-{VICTIM}-"):
            assert await act(keyed, nothing) == (None, "unauthenticated")
        assert await act(plain, None) == (None, None)
        # Whoever has the secret is named, also where the key does not open that
        assert await act(keyed, victim) == (VICTIM, None)
        assert await act(keyed, looks) == ("looks", "not_permitted")
        assert await act(keyed, over) == ("over", "unauthenticated")
        # A router has looked at the key by which it asks a store
        pulls = ManageStore(action="remove", name="m").to_bytes()
        assert await act(subjects.door(LOCAL_TENANT, subjects.STORE), None, pulls) == (VICTIM, None)
    finally:
        await endpoints.stop(patience_s=0.1)
        await events.close()

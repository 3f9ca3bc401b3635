"""What whoever has got hold of a gateway can do with its user of the broker: what every tenant may, and no
more without the keys of those who may."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from nats.aio.client import Client

from infra.broker.access.permissions import OPERATOR, authorization
from infra.broker.broker import Broker
from infra.broker.provision import provision
from infra.host.children.processes import until
from infra.testing.plugin import SpawnService
from infra.tests.broker.test_permissions import PASSWORDS, Session
from schemas import subjects
from schemas.broker import catalog
from schemas.errors import ChoirError, NotPermitted, Unauthenticated
from schemas.nodes.cordons import ManageCordons
from schemas.nodes.model_store import ManageStore
from schemas.nodes.workers import ManageWorkers
from schemas.pipelines.plan import Shard
from schemas.requests.keys import ApiKey, KeyChange, KeyScope, ManageKeys, digest_of, new_secret
from schemas.requests.tenants import Tenant
from services.chassis.nats.bucket import Bucket, messages
from services.chassis.settings import MeshSection
from services.client.client import Choir

pytestmark = pytest.mark.long

Act = Callable[[Choir], Awaitable[object]]
ACTS: dict[str, Act] = {
    "nodes": lambda mesh: mesh.nodes(),
    "status": lambda mesh: mesh.status(),
    "sql": lambda mesh: mesh.sql("SELECT 1"),
    "workers": lambda mesh: mesh.workers(ManageWorkers()),
    "keys": lambda mesh: mesh.keys(ManageKeys()),
    "cordons": lambda mesh: mesh.cordons(ManageCordons()),
    "stores": lambda mesh: mesh.store(ManageStore(action="jobs")),
    "pipelines": lambda mesh: mesh.shard(Shard(model="nobody-has-it", remove=True)),
}
OBSERVING = {"nodes", "status", "sql"}
OWN = {"sql"}
"""With what a tenant looks at its own requests; whose rows it is given the event database says."""
EVERYTHING: tuple[KeyScope, ...] = ("models", "generate", "embed", "observe", "operate")


class Keys:
    """Keys in the bucket of a mesh, each with its secret."""

    def __init__(self, operator: Client) -> None:
        self._bucket = Bucket(operator, subjects.KEYS_BUCKET, messages(ApiKey))
        self.secrets: dict[str, str] = {}

    async def make(self, key_id: str, tenant: str, *scopes: KeyScope, ended: bool = False) -> ApiKey:
        """A key of a tenant, which is good or has `ended`."""
        self.secrets[key_id] = secret = new_secret(key_id)
        key = ApiKey(
            id=key_id, tenant=tenant, scopes=scopes, digest=digest_of(secret), ending=secret[-4:],
            created_at_s=time.time(), expires_at_s=time.time() - 1 if ended else None,
        )  # fmt: skip
        await self._bucket.put(subjects.api_key(key_id), key)
        return key


async def opened(mesh: Choir) -> set[str]:
    """What a gateway may do; whatever else comes of an act, it was let in."""
    found = set()
    for name, act in ACTS.items():
        try:
            await act(mesh)
        except (Unauthenticated, NotPermitted):
            continue
        except ChoirError as error:
            assert error.code == "unknown_model", error
        found.add(name)
    return found


async def test_a_gateway_can_do_no_more_than_those_can_who_show_it_their_keys(
    tmp_path: Path, spawn_service: SpawnService
) -> None:
    # Given a guarded mesh with keys of all kinds, and a gateway that wants them
    async with Broker(tmp_path / "broker", more_config=authorization(PASSWORDS)) as broker:
        operator = await Session(OPERATOR).connect(broker.url)
        await provision(operator, ["alpha"])
        tenants = Bucket(operator, subjects.TENANTS_BUCKET, messages(Tenant))
        await tenants.put("olga", Tenant(name="olga", role="operate"))
        await tenants.put("gone", Tenant(name="gone", role="operate", revoked_at_s=time.time() - 1))
        keys = Keys(operator)
        await keys.make("ask", "local", "models", "generate")
        await keys.make("embed", "local", "embed")
        await keys.make("observe", "local", "observe")
        await keys.make("operate", "local", "operate")
        await keys.make("ended", "local", *EVERYTHING, ended=True)
        await keys.make("ann", "ann", *EVERYTHING)
        await keys.make("olga", "olga", *EVERYTHING)
        await keys.make("gone", "gone", *EVERYTHING)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        told = {
            "router": {},
            "modelstore": {"CHOIR_MODELSTORE__FOLDER": str(tmp_path / "models")},
            "metrics": {"CHOIR_METRICS__FOLDER": str(tmp_path / "metrics")},
            "gateway": {"CHOIR_GATEWAY__KEYS_REQUIRED": "true", "CHOIR_GATEWAY__PORT": str(port)},
        }
        services = [
            spawn_service(
                service,
                service,
                url=broker.url.replace("nats://", f"nats://{service}:{PASSWORDS[service]}@"),
                env=env,
            )
            for service, env in told.items()
        ]
        await asyncio.gather(*(service.wait_ready(operator, 180) for service in services))
        at_stores = await operator.subscribe(subjects.doors(subjects.STORE))
        section = MeshSection(url=broker.url, user="gateway", password=PASSWORDS["gateway"])
        inbox = subjects.service_inbox("gateway", "stolen")
        async with Choir(section=section, tenant="local", inbox=inbox) as stolen:
            # When somebody asks with its password, then by itself nothing of that is let through
            for act in ACTS.values():
                with pytest.raises(ChoirError, match="does not allow this to user 'gateway'"):
                    await act(stolen)
            # And with a key what the key and its tenant open
            shown = {name: ("local", secret) for name, secret in keys.secrets.items()}
            shown |= {name: (name, keys.secrets[name]) for name in ("ann", "olga", "gone")}
            shown |= {
                "made up": ("local", new_secret("operate")),
                "nothing": ("local", ""),
                "its digest": ("local", digest_of(keys.secrets["operate"])),
                "another's": ("local", keys.secrets["olga"]),
            }
            assert {
                name: await opened(stolen.as_tenant(tenant, secret=secret))
                for name, (tenant, secret) in shown.items()
            } == {
                "ask": OWN, "embed": set(), "observe": OBSERVING, "operate": set(ACTS) - OBSERVING,
                "ended": set(), "ann": OWN, "olga": set(ACTS), "gone": set(),
                "made up": set(), "nothing": set(), "its digest": set(), "another's": set(),
            }  # fmt: skip
            # And stores, which any host that joins may run, are told whose key it is, and never shown one
            asked = [(await at_stores.next_msg(timeout=180)).headers or {} for _ in ("operate", "olga")]
            assert [one[subjects.KEY_HEADER] for one in asked] == ["operate", "olga"]
            assert not any(subjects.API_KEY_HEADER in one for one in asked)
            # And no key makes, or becomes, one that may do more
            by_key = stolen.as_tenant("local", secret=keys.secrets["operate"])
            more = ApiKey(
                id="more", scopes=EVERYTHING, digest="0" * 64, ending="0000", created_at_s=time.time()
            )
            with pytest.raises(NotPermitted, match="a key makes none that may do more than itself"):
                await by_key.keys(ManageKeys(action="add", key=more))
            with pytest.raises(NotPermitted, match="a key makes none that may do more than itself"):
                await by_key.keys(
                    ManageKeys(action="change", id="operate", change=KeyChange(scopes=EVERYTHING))
                )
        # And the gateway itself does it over HTTP, with the key of whoever asks it
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}/api/distributed", timeout=180
        ) as http:
            for name, path, status in (
                ("observe", "/status", 200),
                ("operate", "/status", 403),
                ("ask", "/status", 403),
                ("ask", "/requests", 200),
                ("ann", "/requests", 200),
                ("operate", "/workers", 403),
                ("olga", "/workers", 200),
                ("olga", "/nodes", 200),
                ("ann", "/nodes", 403),
            ):
                reply = await http.get(path, headers={"x-api-key": keys.secrets[name]})
                assert reply.status_code == status, (name, path, reply.text)
        for service in services:
            assert await service.stop() == 0
            assert "ermissions" not in service.log(), service.log()
        await operator.close()


async def test_a_gateway_s_user_writes_nothing_of_others(tmp_path: Path) -> None:
    async with Broker(tmp_path / "broker", more_config=authorization(PASSWORDS)) as broker:
        operator = await Session(OPERATOR).connect(broker.url)
        await provision(operator, ["alpha"])
        session = Session("gateway")
        stolen = await session.connect(broker.url)
        own = {
            subjects.NODES_BUCKET, subjects.RESPONSES_BUCKET, subjects.RETRIES_BUCKET, subjects.FILES_BUCKET,
            subjects.KEY_USES_BUCKET,
            subjects.FILE_PIECES_BUCKET, subjects.BATCHES_BUCKET,
        }  # fmt: skip
        forbidden = [
            *(subjects.door("local", subject) for subject in catalog.KEYED),
            *(subjects.bucket_key(one.name, "some.key") for one in catalog.BUCKETS if one.name not in own),
            subjects.bucket_key(subjects.NODES_BUCKET, subjects.node_key("agent", "a")),
            subjects.result("r1"),
            subjects.answer("r1", 0, "alpha"),
            subjects.token("r1", "alpha"),
            subjects.generate("interactive", "alpha", "r1"),
            subjects.cancel_signal("r1"),
            subjects.event("router", "test"),
            f"{subjects.inbox_prefix('router')}.x",
            "$JS.API.STREAM.NAMES",
            "$JS.API.CONSUMER.CREATE.RESULTS",
            f"$JS.API.DIRECT.GET.{subjects.RESULTS_STREAM}",
            "$SRV.PING",
        ]
        for subject in forbidden:
            await stolen.publish(subject, b"{}")
        await until(lambda: len(session.refused) >= len(forbidden), 180)
        assert [one for one in forbidden if not session.was_refused(one)] == []
        await stolen.close()
        await operator.close()

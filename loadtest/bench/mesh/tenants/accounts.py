"""What accounts cost: `choir.ask` through a tenant's account beside the same on a broker of one account.

Two meshes of the same services run at once, and rounds of asks alternate between them. In one of them each
service has a key and its own permissions and the client comes through service imports, as with `choir up`; in
the other all are in one account and may do everything.
"""

from __future__ import annotations

import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import nats
import uvloop
from nats.aio.client import Client

from infra.broker.broker import Broker
from infra.host.supervisor import Supervisor
from infra.settings import HostSettings, load_host_settings
from infra.testing.switched_off import switched_off
from loadtest.bench.mesh.overhead import SINGLE, WARM_UP, ask, latencies_ms
from loadtest.bench.report import Report, at_most

ROUNDS = 9
PER_ROUND = 150
CONFIG = """
[broker]
port = 0
[[agents]]
name = "alpha"
backend = "instant"
models = [{ name = "alpha" }]
""" + switched_off("aggregator", "summarizer", "metrics", "gateway", "modelstore")


def settings_in(folder: Path, url: str | None = None) -> HostSettings:
    """The settings of a mesh with a broker of its own, or of one that joins the broker at `url`."""
    folder.mkdir()
    text = CONFIG if url is None else CONFIG.replace("port = 0", f'embedded = false\n[mesh]\nurl = "{url}"')
    (folder / "choir.toml").write_text(text)
    return load_host_settings(folder / "choir.toml")


async def client_of(stack: AsyncExitStack, settings: HostSettings, state: Path) -> Client:
    """Starts the mesh, and connects to it without credentials."""
    supervisor = Supervisor(settings, state=state, forward=lambda *_: None)
    await supervisor.start()
    stack.push_async_callback(supervisor.stop)
    client = await nats.connect(supervisor.url)
    stack.push_async_callback(client.close)
    return client


async def measure(folder: Path) -> dict[str, Any]:
    """Latencies of one request after another, and losses, of one run."""
    async with AsyncExitStack() as stack:
        open_to_all = await stack.enter_async_context(Broker(folder / "broker"))
        calls = {
            "one account": ask(
                await client_of(stack, settings_in(folder / "open", open_to_all.url), folder / "open-state"),
                SINGLE,
            ),
            "accounts": ask(
                await client_of(stack, settings_in(folder / "own"), folder / "own-state"), SINGLE
            ),
        }
        for call in calls.values():
            await latencies_ms(call, WARM_UP)
        p50s: dict[str, list[float]] = {name: [] for name in calls}
        lost = 0
        for _ in range(ROUNDS):
            for name, call in calls.items():
                taken, failed = await latencies_ms(call, PER_ROUND)
                p50s[name].append(statistics.median(taken))
                lost += failed
    pairs = zip(p50s["accounts"], p50s["one account"], strict=True)
    return {
        "p50_ms": {name: statistics.median(values) for name, values in p50s.items()},
        "p50_ratio": statistics.median(these / those for these, those in pairs),
        "lost": lost,
    }


def run() -> Report:
    """Measures on this machine's disk, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        raw = uvloop.run(measure(Path(folder)))
    return Report(
        bench="accounts",
        raw=raw,
        targets=(
            at_most("ask p50 with accounts / without", raw["p50_ratio"], 1.15),
            at_most("requests lost", raw["lost"], 0.0),
        ),
        notes=("one instant model; everything in a process of its own; file streams synced on every write.",),
    )

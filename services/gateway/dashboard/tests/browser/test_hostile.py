"""Strangers' texts in a real browser: markup, scripts, control characters, marks that turn the writing, lines
of a megabyte; as prompt, answer, name of a model and of a host. All is text, and nothing is displaced."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from playwright.async_api import Page

from infra.testing.plugin import SpawnService
from schemas import subjects
from schemas.errors import ErrorBody
from schemas.nodes.lease import NodeLease, ServedModel
from services.chassis.nats.bucket import Bucket, messages
from services.gateway.dashboard.shell.pages import shown
from services.gateway.dashboard.tests.browser.browsing import (
    PATIENCE_MS,
    PHONE,
    barriers,
    chromium,
    needs_chromium,
    opened,
)
from services.gateway.dashboard.tests.browser.test_views import asked
from services.gateway.tests.serving import serving

pytestmark = [needs_chromium, pytest.mark.soak]

MODEL = "<img/src=x/onerror=alert(1)>\u202egnp"
MARKUP = (
    "</div></bdi><script>alert(2)</script><img src=x onerror=alert(3)><b>bold\x07\x1b[2J\u202egnp.exe\u2066 "
)
LINE = MARKUP + "A" * 900_000
"""As much as the broker carries in one message."""
REPLIES = {MODEL: MARKUP + "A" * 400_000, "too-long": MARKUP + "A" * 1_000_000}
"""A result has its text twice: of the second one the broker carries none."""
HOSTS = {"attic": MARKUP, "cellar": LINE}
WRITTEN_EVERY_S = 1.0
VIEWS = tuple(f"/dashboard{path}" for path in ("", "/ask", "/nodes", "/models", "/pipelines", "/requests"))
FOREIGN = "document.querySelectorAll('main :is(script, img, iframe, object, b b, bdi *)').length"


@pytest.fixture
def mesh_models() -> tuple[str, ...]:
    """Those that are asked."""
    return tuple(REPLIES)


@asynccontextmanager
async def hosts_that_lie(connection: Client) -> AsyncIterator[None]:
    """Leases of services on hosts that call themselves what they like, kept as they would be."""
    bucket = Bucket(connection, subjects.NODES_BUCKET, messages(NodeLease))

    model = ServedModel(name=MODEL, backend="b", slots=1, file=MARKUP, description=MARKUP)
    problem = ErrorBody(code="internal", message=MARKUP)

    async def keep() -> None:
        while True:
            for instance, host in HOSTS.items():
                now_s = time.time()
                lease = NodeLease(
                    service="agent", instance=instance, host=host, pid=1, version=MARKUP, state="broken",
                    started_at_s=now_s, seen_at_s=now_s, slots=1, problem=problem, models=(model,),
                )  # fmt: skip
                await bucket.put(subjects.node_key("agent", instance), lease)
            await asyncio.sleep(WRITTEN_EVERY_S)

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


async def asked_alone(page: Page, model: str, words: str) -> None:
    """Returns when a model was asked by itself, and the page has said so."""
    for box in await page.get_by_role("group", name="Models").get_by_role("checkbox").all():
        await box.uncheck()
    await page.get_by_role("checkbox", name=model, exact=True).check()
    await page.get_by_role("button", name="Ask").click()
    await page.locator("choir-ask > .state", has_text=words).wait_for()


async def test_what_strangers_write_is_text_on_every_page_and_displaces_nothing(
    connection: Client, mesh_url: str, spawn_service: SpawnService, tmp_path: Path
) -> None:
    config = tmp_path / "choir.toml"
    models = "".join(f"[[agent.models]]\nname = {json.dumps(name)}\nreply = {json.dumps(reply)}\n"
                     for name, reply in REPLIES.items())  # fmt: skip
    config.write_text(f'[agent]\nname = "liar"\nbackend = "instant"\n{models}')
    for service in ("router", "aggregator", "metrics"):
        spawn_service(service, service)
    spawn_service("agent", "liar", env={"CHOIR_CONFIG": str(config)})
    problems: list[str] = []
    async with (
        hosts_that_lie(connection),
        serving(mesh_url, max_body_bytes=2**23) as url,
        chromium() as browser,
    ):
        for colours, width in (("light", 1280), ("dark", PHONE)):
            options: dict[str, Any] = {"color_scheme": colours, "viewport": {"width": width, "height": 900}}
            async with opened(url, problems, browser, **options) as page:
                await page.goto("/dashboard/ask")
                async with asyncio.timeout(PATIENCE_MS / 1000):
                    while not await page.get_by_role("checkbox", name="too-long").count():
                        await page.reload()  # the mesh comes up meanwhile
                await page.get_by_role("textbox", name="Question", exact=True).fill(MARKUP)
                await page.get_by_role("checkbox", name="majority").uncheck()
                await asked_alone(page, "too-long", "That did not work: answer: the message has")
                await asked_alone(page, shown(MODEL), "decided")
                answer = page.get_by_role("group", name="The answer")
                assert (await answer.inner_text()).startswith(shown(MARKUP).rstrip()[:60])
                assert await page.evaluate(FOREIGN) == 0
                assert await barriers(page) == [], (width, "the answer")
                link = await asked(url, prompt=LINE, models=[MODEL])
                for view in (*VIEWS, link):
                    await page.goto(view)
                    assert await page.evaluate(FOREIGN) == 0, (view, width)
                    assert await barriers(page) == [], (view, width)
                await page.goto("/dashboard/nodes")
                await page.get_by_role("heading", name=shown(MARKUP).strip(), exact=True).wait_for()
    assert problems == []

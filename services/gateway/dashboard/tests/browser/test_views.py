"""Every view in a real browser, light and dark, wide and as a phone has it: nothing is in anybody's way.

One mesh and one browser for all of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Page, Request

from services.gateway.dashboard.tests.browser.browsing import (
    PHONE,
    barriers,
    chromium,
    needs_chromium,
    opened,
)
from services.gateway.dashboard.tests.test_runs import EVALUATION, LOAD_TEST, write_runs
from services.gateway.tests.serving import serving

pytestmark = [needs_chromium, pytest.mark.soak]

DRAWN_MS = 120_000
BUNDLE = "/dashboard/charts/vega.js"
"""What draws charts: 900 kB, for pages that have one."""
NOTHING = "/dashboard/nothing"
"""A page that is not there: the console says so."""
VIEWS = (
    *("/dashboard", "/dashboard/ask", "/dashboard/requests?within=1+h", "/dashboard/pipelines"),
    *(
        "/dashboard/nodes",
        "/dashboard/models",
        "/dashboard/workers",
        "/dashboard/admin",
        "/dashboard/queries?query=latency_by_model",
    ),
    *(
        "/dashboard/queries?sql=SELECT+1+AS+one",
        "/dashboard/runs",
        f"/dashboard/runs?run={EVALUATION}&beside={LOAD_TEST}",
    ),
    *(f"/dashboard/runs/{EVALUATION}/questions", NOTHING),
)
LONG = "A" * 700_000
HOSTILE = f"<script>alert(1)</script><b>bold</b>\x07\u202egnp.exe\u2066 {LONG}"


async def asked(url: str, **body: object) -> str:
    """The link of a request that has its result and its events."""
    async with httpx.AsyncClient(base_url=url, timeout=120) as http:
        reply = await http.post("/dashboard/ask/answers", json=body)
        link: str = json.loads(reply.text.split("data: ")[1].split("\n")[0])["link"]
        async with asyncio.timeout(120):
            while True:
                if "Where the time went" in (await http.get(link)).text:
                    return link
                await asyncio.sleep(0.1)


def noting(urls: list[str]) -> Callable[[Request], None]:
    """Puts what a page asks for into a list."""

    def note(request: Request) -> None:
        urls.append(request.url)

    return note


async def charts_are_drawn(page: Page) -> None:
    """Every chart of the page is there, or says why not."""
    for chart in await page.locator("choir-chart").all():
        await chart.scroll_into_view_if_needed()
        await page.wait_for_function(
            "chart => chart.dataset.drawn || chart.textContent.includes('nothing of this happened')",
            arg=await chart.element_handle(),
            timeout=DRAWN_MS,
        )


async def test_nothing_is_in_the_way_of_anybody_on_any_view(live_mesh: str, tmp_path: Path) -> None:
    write_runs(tmp_path)
    problems: list[str] = []
    async with serving(live_mesh, results=tmp_path, max_body_bytes=2**22) as url, chromium() as browser:
        ensemble = await asked(
            url, prompt=HOSTILE, models=["choir-one", "choir-three"], strategies=["majority", "debate"]
        )
        chain = await asked(url, prompt="Tell me", models=["choir-one"], summarize_with=["choir-two"])
        for colours, width in (("light", 1280), ("dark", PHONE)):
            options: dict[str, Any] = {"color_scheme": colours, "viewport": {"width": width, "height": 900}}
            async with opened(url, problems, browser, **options) as page:
                asked_for: list[str] = []
                page.on("request", noting(asked_for))
                for view in (*VIEWS, ensemble, chain, f"{chain}/json"):
                    asked_for.clear()
                    await page.goto(view)
                    await charts_are_drawn(page)
                    if not await page.locator("choir-chart").count():
                        assert not any(one.endswith(BUNDLE) for one in asked_for), view
                    if not view.endswith("/json"):
                        assert await barriers(page) == [], (view, colours, width)
                await page.goto(chain)
                await page.get_by_role("heading", name="Steps of the chain").wait_for()
    assert [problem for problem in problems if not problem.endswith(NOTHING)] == []


async def test_everything_can_be_done_with_the_keyboard(live_mesh: str) -> None:
    problems: list[str] = []
    async with serving(live_mesh) as url, opened(url, problems) as page:
        await page.goto("/dashboard/workers")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "To the content"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "content"
        await page.goto("/dashboard/queries")
        await page.get_by_label("A query that comes with Choir").focus()
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.get_by_role("heading", name="Rows", exact=True).wait_for()
        await page.goto("/dashboard/admin")
        await page.get_by_label("Whose it is, or what for").fill("a key of the keyboard")
        await page.keyboard.press("Enter")
        await page.get_by_text("shown this once:").wait_for()
        revoke = page.get_by_role("row", name="a key of the keyboard").get_by_role("button", name="Revoke")
        await revoke.focus()
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Really?").or_(revoke).first.focus()
        await page.keyboard.press("Enter")
        await page.get_by_role("row", name="a key of the keyboard").get_by_text("revoked").wait_for()
    assert problems == []

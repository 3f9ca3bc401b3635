"""The pages in a real browser: a way through them, without an error and without another host."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from typing import Any

from services.gateway.dashboard.tests.browser.browsing import PHONE, barriers, needs_chromium, opened
from services.gateway.tests.serving import serving

pytestmark = needs_chromium

MENDED_MS = 120_000
"""A browser tries again after some seconds, by itself."""


async def test_somebody_looks_at_the_mesh_asks_and_finds_the_request_again(live_mesh: str) -> None:
    problems: list[str] = []
    async with serving(live_mesh) as url, opened(url, problems) as page:
        await page.goto("/")
        assert await page.title() == "Mesh - Choir"
        await page.get_by_role("rowheader", name="choir-one").wait_for()
        await page.get_by_role("link", name="Ask", exact=True).click()
        await page.get_by_role("textbox", name="Question", exact=True).fill("Capital of <b>France</b>?")
        for model in ("choir-slow", "choir-short", "choir-long"):
            await page.get_by_role("checkbox", name=model).uncheck()
        await page.get_by_role("checkbox", name="weighted").check()
        await page.get_by_role("button", name="Ask").click()
        await page.get_by_role("status").get_by_text("decided").wait_for()
        await page.get_by_role("heading", name="choir-three").wait_for()  # of two this would complain
        await page.get_by_role("link", name="This request's page").click()
        await page.get_by_role("heading", name=re.compile("^Request ")).wait_for()
        for strategy in ("weighted", "isp", "dawid_skene"):  # what the others decide is told without a word
            await page.get_by_role("rowheader", name=strategy).wait_for()
        await page.get_by_role("button", name="Right").click()
        await page.get_by_text("Counted: right:").wait_for()
        await page.get_by_role("heading", name="Where the time went").wait_for()
        assert await barriers(page) == []
        await page.get_by_role("link", name="Requests", exact=True).click()
        await page.get_by_label("State").select_option("answered")
        await page.get_by_role("button", name="Show").click()
        await page.wait_for_url("**/dashboard/requests?*")
        assert "state=answered" in page.url
        await page.get_by_role("link", name="Ask", exact=True).click()
        await page.get_by_role("textbox", name="Question", exact=True).fill("Tell me")
        for model in ("choir-one", "choir-three", "choir-four", "choir-slow", "choir-short", "choir-long"):
            await page.get_by_role("checkbox", name=model).uncheck()
        await page.get_by_role("combobox", name=re.compile("^Then")).select_option("choir-one")
        await page.get_by_role("button", name="Ask").click()
        await page.get_by_role("heading", name="Steps of the chain").wait_for()
    assert problems == []


async def test_a_page_whose_gateway_goes_says_so_and_mends_itself_also_on_a_phone(live_mesh: str) -> None:
    phone: dict[str, Any] = {"color_scheme": "dark", "viewport": {"width": PHONE, "height": 800}}
    async with AsyncExitStack() as stack:
        async with serving(live_mesh) as url:
            page = await stack.enter_async_context(opened(url, [], **phone))
            await page.goto("/dashboard")
            model = page.get_by_role("rowheader", name="choir-one")
            await model.wait_for()
            assert await barriers(page) == []
        lost = page.get_by_role("status").get_by_text("Not connected since")
        await lost.wait_for()
        assert await model.count() == 1
        await page.evaluate("document.getElementById('models').replaceChildren()")
        async with serving(live_mesh, port=int(url.rpartition(":")[2])):
            await lost.wait_for(state="detached", timeout=MENDED_MS)
            await model.wait_for()

"""The pages in a real browser: a way through all of them, without an error and without another host.

Needs Chromium on PATH; Playwright's package drives it, and brings no browser.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, async_playwright

from services.gateway.tests.serving import serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

PHONE = 390

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH")


@asynccontextmanager
async def opened(url: str, problems: list[str], **options: object) -> AsyncIterator[Page]:
    """A page of a new browser. `problems` gets what is wrong in the browser's eyes: errors on its console,
    requests to another host."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            context = await browser.new_context(base_url=url, **options)  # type: ignore[arg-type]
            page = await context.new_page()
            page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("request", lambda request: problems.extend(_foreign(request.url, url)))
            yield page
        finally:
            await browser.close()


def _foreign(asked: str, own: str) -> list[str]:
    return [] if urlsplit(asked).netloc == urlsplit(own).netloc else [f"asked {asked}"]


async def test_somebody_looks_at_the_mesh_asks_and_finds_the_request_again(live_mesh: str) -> None:
    problems: list[str] = []
    async with serving(live_mesh) as url, opened(url, problems) as page:
        await page.goto("/")
        assert await page.title() == "Mesh - Choir"
        await page.get_by_role("cell", name="choir-one").wait_for()
        await page.get_by_role("link", name="Ask", exact=True).click()
        await page.get_by_role("textbox", name="Question", exact=True).fill("Capital of <b>France</b>?")
        for model in ("choir-slow", "choir-short"):
            await page.get_by_role("checkbox", name=model).uncheck()
        await page.get_by_role("checkbox", name="weighted").check()
        await page.get_by_role("button", name="Ask").click()
        await page.get_by_role("status").get_by_text("decided").wait_for()
        assert await page.get_by_role("heading", name="choir-three").count() == 1
        await page.get_by_role("link", name="This request's page").click()
        await page.get_by_role("heading", name=re.compile("^Request ")).wait_for()
        assert await page.get_by_role("rowheader", name="weighted").count() == 1
        await page.get_by_role("link", name="Requests", exact=True).click()
        await page.get_by_label("State").select_option("answered")
        await page.get_by_role("button", name="Show").click()
        await page.wait_for_url("**/dashboard/requests?*")
        assert "state=answered" in page.url
    assert problems == []


async def test_a_page_whose_connection_is_lost_says_so_and_fits_a_phone(live_mesh: str) -> None:
    phone = {"color_scheme": "dark", "viewport": {"width": PHONE, "height": 800}}
    async with serving(live_mesh) as url, opened(url, [], **phone) as page:
        await page.goto("/dashboard")
        await page.get_by_role("cell", name="choir-one").wait_for()
        assert await page.locator("html").evaluate("element => element.scrollWidth") <= PHONE
        await page.route("**/dashboard/live/mesh", lambda route: route.abort())
        await page.reload()
        await page.get_by_role("status").get_by_text("Not connected since").wait_for()

"""The page of samples in a real browser: each filter leaves what it says, and nothing else is loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright

from analysis.evaluation.contestants.reaggregation import reaggregate
from analysis.evaluation.reporting.samples import samples
from analysis.evaluation.scoring.reading import read_run
from analysis.evaluation.tests.kept import WAYS, exchange, run_folder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_MS = 120_000
STRATEGIES = ("majority", "weighted")


def page_of_samples(folder: Path) -> Path:
    """Forty questions that all agree on; then a tie, one that is not read, and one that did not come."""
    kept = [exchange(n, "A", {"one": "red", "two": "red"}) for n in range(40)]
    kept += [
        exchange(40, "A", {"one": "red", "two": "blue"}),
        exchange(41, "A", {"one": "red", "two": "<img src=x onerror=alert(1)>"}),
        exchange(42, "B", {"one": "red"}, agents=("one", "two")),
    ]
    config = run_folder(folder, ("one", "two"), ("colours",), STRATEGIES).config
    path = folder / "samples.html"
    path.write_text(samples(config, read_run(kept, WAYS), reaggregate(kept, WAYS, STRATEGIES, 0)))
    return path


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH")
async def test_samples_are_filtered_by_disagreement_strategy_and_what_was_not_read(tmp_path: Path) -> None:
    address, problems, asked = page_of_samples(tmp_path).as_uri(), list[str](), list[str]()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.on("dialog", lambda dialog: problems.append(f"a dialog: {dialog.message}"))
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(address)
        assert await told(page) == ("43 of 43 samples", 25)
        await page.get_by_role("button", name="further").click()
        assert await told(page) == ("43 of 43 samples", 18)
        for field, chosen, left in (
            ("agents", "disagree", 1),
            ("answers", "some not read, or none", 2),
            ("is", "decided by lot", 1),
            ("is", "wrong", 1),
        ):
            await page.locator(f"select[name={field}]").select_option(chosen)
            assert await told(page) == (f"{left} of 43 samples", left), (field, chosen)
            await page.reload()  # the address has the filter
            assert await told(page) == (f"{left} of 43 samples", left), (field, chosen)
            await page.locator(f"select[name={field}]").select_option(index=0)
        await page.locator("input[name=text]").fill("onerror")
        assert await told(page) == ("1 of 43 samples", 1)
        cell = page.get_by_role("row", name="two").get_by_role("cell").nth(1)
        assert (await cell.inner_text()).strip() == "<img src=x onerror=alert(1)>"
        assert await page.get_by_role("columnheader", name="read as").count() == 1
        await browser.close()
    assert (problems, {each.partition("#")[0] for each in asked}) == ([], {address})


async def told(page: Page) -> tuple[str, int]:
    """How many samples the page says that it found, and how many it shows."""
    return await page.locator("#count").inner_text(), await page.locator("article").count()

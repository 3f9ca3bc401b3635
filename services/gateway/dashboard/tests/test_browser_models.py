"""A model's way through its page, in a real browser: added, loaded, unloaded, deleted."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Page

from infra.testing.plugin import SpawnService
from services.gateway.dashboard.tests.browsing import needs_chromium, opened
from services.gateway.tests.serving import serving
from services.modelstore.tests.stores import small_model, spawn_store

pytestmark = [needs_chromium, pytest.mark.soak]

STORE, MODEL = "attic-store", "small"
AGENT = {
    "name": "attic",
    "threads": 1,
    "on_demand": {"store": STORE, "slots": 1, "context_tokens": 128, "memory_bytes": 400_000_000},
}


@pytest.fixture(scope="module")
def mesh_models() -> tuple[str, ...]:
    """The model that is added has its queue."""
    return (MODEL,)


async def surely(page: Page, button: str) -> None:
    """Clicks on what asks back, twice."""
    first = page.get_by_role("button", name=button)
    await first.click()
    await page.locator("button[data-asked]").click()


async def test_a_model_is_added_loaded_unloaded_and_deleted(
    mesh_url: str, spawn_service: SpawnService, tmp_path: Path
) -> None:
    file = small_model(tmp_path / "small.gguf", layers=1, width=32)
    spawn_service("router", "router-1")
    spawn_service("agent", "attic", agent=AGENT)
    spawn_store(spawn_service, STORE, tmp_path / "store")
    problems: list[str] = []
    async with serving(mesh_url) as url, opened(url, problems) as page:
        await page.goto("/dashboard/models")
        await page.get_by_label("Files that lie at").fill(str(file))
        await page.get_by_label("called").fill(MODEL)
        await page.get_by_role("button", name="Add").click()
        loaded = page.get_by_role("region", name="What is loaded")
        keep = loaded.get_by_label(f"How long {MODEL} stays at attic")
        await keep.select_option("for 1 h", timeout=60_000)
        await loaded.get_by_role("button", name=f"Load {MODEL} at attic").click()
        await page.get_by_text(f"{MODEL} is loaded at attic").wait_for(timeout=60_000)
        await loaded.get_by_text("loaded, ").wait_for()
        await loaded.get_by_role("button", name=f"Unload {MODEL} at attic").click()
        await page.get_by_text(f"{MODEL} is unloaded at attic").wait_for(timeout=60_000)
        await surely(page, f"Delete {MODEL} everywhere")
        await page.get_by_text("Nothing yet.").wait_for()
    assert problems == []

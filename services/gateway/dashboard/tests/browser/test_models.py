"""A model's way through its page, in a real browser: added, loaded, unloaded, deleted; fetched from a hub
while the page tells how far it is, and copied to a second host."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from playwright.async_api import Page

from infra.testing.plugin import SpawnService
from infra.testing.stand_ins.hub_server import PIECE_BYTES, hub_server
from services.gateway.dashboard.tests.browser.browsing import needs_chromium, opened
from services.gateway.tests.serving import serving
from services.modelstore.tests.stores import small_model, spawn_store, store_elsewhere, whole_files

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


async def test_a_model_is_fetched_while_the_page_tells_how_far_it_is_and_copied_to_a_second_host(
    mesh_url: str, spawn_service: SpawnService, tmp_path: Path
) -> None:
    content = small_model(tmp_path / "little.gguf", layers=4, width=256).read_bytes()
    spawn_service("router", "router-1")
    problems: list[str] = []
    with hub_server("org/little-GGUF", {"little-Q8_0.gguf": content}) as hub:
        hub.stops_at = 20 * PIECE_BYTES
        spawn_store(spawn_service, STORE, tmp_path / "store", hub=hub.url, patience_s=600)
        async with (
            store_elsewhere(mesh_url, "cellar", tmp_path / "cellar"),
            serving(mesh_url) as url,
            opened(url, problems) as page,
        ):
            await page.goto("/dashboard/models")
            await page.get_by_label("Model", exact=True).fill("hf:org/little-GGUF:Q8_0")
            await page.get_by_label("to the store of").select_option(socket.gethostname())
            await page.get_by_role("button", name="Fetch").click()
            fetched = page.get_by_role("region", name="Jobs").get_by_role("row", name="little-GGUF")
            # The hub has sent some of it, and waits
            some = f"{20 * PIECE_BYTES / 1024**2:.1f} MiB of {len(content) / 1024**2:.1f} MiB"
            await fetched.get_by_role("cell", name=some).wait_for()
            bar = fetched.get_by_role("progressbar", name="pull hf:org/little-GGUF:Q8_0")
            assert await bar.evaluate("bar => bar.position") == 20 * PIECE_BYTES / len(content)
            hub.goes_on.set()
            await fetched.get_by_role("cell", name="done", exact=True).wait_for()
            kept = page.get_by_role("region", name="Models that are kept").get_by_role(
                "row", name="little-Q8_0"
            )
            await kept.get_by_text("org/little-GGUF").wait_for()
            assert whole_files(tmp_path / "cellar") == {}
            await kept.get_by_label("Where to copy little-Q8_0").select_option("cellar")
            await kept.get_by_role("button", name="Copy little-Q8_0").click()
            await kept.get_by_role("button", name="Remove here: little-Q8_0, cellar").wait_for()
            await kept.get_by_text("a part").wait_for(state="detached")
            assert await kept.get_by_role("button", name="Copy little-Q8_0").count() == 0
    assert list(whole_files(tmp_path / "cellar").values()) == [content]
    assert problems == []

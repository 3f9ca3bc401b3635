"""A pipeline on its page: planned before anything is done, refused with a reason, placed by hand; and a stage
that is killed while the page is open, whose place another takes.

How soon depends on how busy the machine is: an idle one takes about a second.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page

from infra.testing.choir_up import choir_command, clean_environment, wait_until_up
from schemas.pipelines.plan import PipelineSummary
from services.client.client import Choir
from services.gateway.dashboard.tests.browser.browsing import barriers, needs_chromium, opened
from services.gateway.tests.serving import serving

pytestmark = [needs_chromium, pytest.mark.soak]

DEADLINE_S = 120.0
CONFIG = """
[broker]
port = 0
[[agents]]
name = "one"
backend = "instant"
models = [{ name = "choir-one" }]
"""


@pytest.fixture
def sharded_mesh(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """The URL of a mesh with a pipeline of two stages and one that stands by; its supervisor's process."""
    config = tmp_path / "choir.toml"
    config.write_text(CONFIG)
    with (tmp_path / "up.log").open("wb") as log:
        up = subprocess.Popen(
            choir_command("up", "--config", str(config), "--shard", "demo:choir-llama=2"),
            env=clean_environment(tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache")),
            stdout=log,
            stderr=log,
        )
    try:
        yield wait_until_up(tmp_path, up).url, up.pid
    finally:
        up.send_signal(signal.SIGCONT)
        up.send_signal(signal.SIGTERM)
        up.wait(DEADLINE_S)


async def ready(mesh: Choir) -> PipelineSummary:
    """The pipeline, once all of its stages are ready and another instance stands by."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = await mesh.pipelines()
            if found and found[0].state == "ready" and found[0].standbys:
                return found[0]
            await asyncio.sleep(0.1)


async def plan(page: Page, **fields: str) -> None:
    """Fills the form, and asks for the plan."""
    for label in ("Stages", "Nodes, in order"):
        await page.get_by_label(label, exact=True).fill(fields.get(label.split(",")[0].lower(), ""))
    await page.get_by_role("button", name="Show the plan").click()


async def planned_and_placed_by_hand(page: Page, mesh: Choir, before: PipelineSummary) -> PipelineSummary:
    """The pipeline as it is placed then: its stages have changed places."""
    others = [stage.instance for stage in reversed(before.stages)]
    told = page.get_by_role("region", name="The plan")
    await plan(page, stages="32")
    await page.locator(".state.problem", has_text="can have 1 to").wait_for()
    await plan(page, nodes="nobody")
    await page.locator(".state.problem", has_text="no node 'nobody' offers").wait_for()
    await page.get_by_role("checkbox", name="also where that only slows it down").check()
    await plan(page, nodes=", ".join(others))
    await page.get_by_text("planned; nothing has been done yet").wait_for()
    await told.get_by_text(re.compile(r"A token takes [0-9.]+ ms as predicted")).wait_for()
    assert await told.get_by_role("rowheader").all_inner_texts() == others
    assert (await mesh.pipelines())[0].epoch == before.epoch
    assert await barriers(page) == []
    await page.get_by_role("button", name="Run it").click()
    await page.get_by_text(re.compile(f"ready, epoch (?!{before.epoch},)")).wait_for()
    placed = await ready(mesh)
    assert [stage.instance for stage in placed.stages] == others
    return placed


async def test_a_page_plans_a_pipeline_and_shows_that_another_takes_the_place_of_a_killed_stage(
    sharded_mesh: tuple[str, int],
) -> None:
    mesh_url, supervisor = sharded_mesh
    problems: list[str] = []
    async with (
        serving(mesh_url) as url,
        Choir(mesh_url) as mesh,
        opened(url, problems) as page,
    ):
        first = await ready(mesh)
        await page.goto("/dashboard/pipelines")
        await page.get_by_text(f"ready, epoch {first.epoch},").wait_for()
        before = await planned_and_placed_by_hand(page, mesh, first)
        victim = before.stages[-1].instance
        pid = next(node.pid for node in await mesh.nodes() if node.instance == victim)
        os.kill(supervisor, signal.SIGSTOP)  # a quick one starts the stage again before it is missed
        os.kill(pid, signal.SIGKILL)
        stages = page.locator("#pipelines")
        await stages.get_by_text(f"epoch {before.epoch + 1},").wait_for(timeout=DEADLINE_S * 1000)
        await stages.get_by_text(f"{before.standbys[0]} on").wait_for(timeout=DEADLINE_S * 1000)
        await page.get_by_text(f"ready, epoch {before.epoch + 1},").wait_for(timeout=DEADLINE_S * 1000)
        assert f"{victim} on" not in await stages.inner_text()
    refused = [problem for problem in problems if not problem.endswith("/pipelines/plan")]
    assert refused == []  # the browser tells of the two plans that were refused

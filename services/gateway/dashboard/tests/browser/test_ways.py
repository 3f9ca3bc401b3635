"""Ways through the pages in a real browser: what comes in while one looks, and what one does there."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from nats.aio.client import Client
from playwright.async_api import Page
from playwright.async_api import TimeoutError as NotClicked

from infra.members.tests.desks import start_desk
from infra.testing.plugin import SpawnService
from schemas import subjects
from schemas.nodes.joining import Host
from schemas.requests.keys import KEY_SCOPES, ManageKeys
from schemas.requests.tenants import Tenant
from services.client.client import Choir
from services.gateway.access.fresh_login import login_of
from services.gateway.access.tests.conftest import MakeKey
from services.gateway.dashboard.tests.browser.browsing import PATIENCE_MS, chromium, needs_chromium, opened
from services.gateway.dashboard.tests.browser.test_views import charts_are_drawn
from services.gateway.dashboard.tests.test_runs import EVALUATION, LOAD_TEST, write_runs
from services.gateway.tests.serving import serving

pytestmark = [needs_chromium, pytest.mark.soak]

CLICK_MS = 4_000
ELSEWHERE, WORKER = "choir-elsewhere", "mac-7"


async def surely(page: Page, button: str, words: str) -> None:
    """Clicks on what asks back, and when it is asked; a page that changes meanwhile asks anew."""
    first = page.get_by_role("button", name=button, exact=True)
    asked = page.get_by_role("button", name=re.compile(f"^Really.*{re.escape(button)}$"))
    async with asyncio.timeout(PATIENCE_MS / 1000):
        while True:
            with suppress(NotClicked):
                await first.click(timeout=CLICK_MS)
            with suppress(NotClicked):
                await asked.click(timeout=CLICK_MS)
                break
    await page.get_by_text(words).wait_for()


async def requests_come_in(page: Page, mesh: Choir) -> None:
    """The list is open before anybody asks; what failed is counted by its code, and one click leads on."""
    await page.goto("/dashboard/requests?model=choir-two")
    before = await page.evaluate("performance.timeOrigin")
    asked = [await mesh.submit(f"Capital {number}?", model="choir-two") for number in range(2)]
    for request_id in asked:
        await page.get_by_role("link", name=request_id).wait_for()
    given_up = await mesh.submit("Capital?", models=["choir-two", "choir-slow"])
    await page.get_by_role("link", name=given_up).wait_for()
    await mesh.cancel(given_up)
    await page.get_by_role("rowheader", name="cancelled").wait_for()
    assert await page.evaluate("performance.timeOrigin") == before  # nobody has loaded the page again
    await page.get_by_label("State").select_option("failed")
    await page.get_by_role("button", name="Show").click()
    await page.get_by_role("link", name=given_up).wait_for()
    assert await page.get_by_role("link", name=asked[0]).count() == 0
    await charts_are_drawn(page)
    await page.goto(f"/dashboard/requests?id={asked[0]}")
    await page.get_by_role("link", name=asked[0]).click()
    await page.get_by_role("heading", name="Where the time went").wait_for()
    await page.get_by_role("link", name="as JSON").click()
    await page.wait_for_url("**/json")
    assert asked[0] in await page.inner_text("body")


async def an_agent_is_taken_out_and_let_in(page: Page) -> None:
    """Cordoned, drained, let in again; the page says how it does, by itself."""
    await page.goto("/dashboard/nodes")
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="sleeper", exact=True))
    try:
        await row.get_by_role("button", name="Cordon sleeper").click()
        await row.get_by_role("button", name="Let in again sleeper").wait_for()
        await surely(page, "Drain sleeper", "sleeper is being drained")
        await row.get_by_role("cell", name="drained", exact=True).wait_for()
    finally:
        await page.get_by_role("button", name="Let in again sleeper").click()
    await row.get_by_role("button", name="Cordon sleeper").wait_for()
    await row.get_by_role("cell", name="ready", exact=True).wait_for()


async def a_worker_comes_and_goes(page: Page, port: int) -> None:
    """A server elsewhere is added with a test, asked, taken out of work and removed. It is this gateway:
    one of Ollama's kind."""
    await page.goto("/dashboard/workers")
    said = {"Name": WORKER, "Host": "127.0.0.1", "Port": str(port), "Name in the mesh": ELSEWHERE}
    for label, value in {**said, "Model, as the server calls it": "choir-one"}.items():
        await page.get_by_label(label, exact=True).fill(value)
    await page.get_by_role("button", name="Add and test").click()
    await page.get_by_text(f"{WORKER} is registered").wait_for()
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=WORKER))
    await row.get_by_role("cell", name="works", exact=True).wait_for()
    await page.goto("/dashboard/ask")
    await page.get_by_role("textbox", name="Question", exact=True).fill("Capital?")
    boxes = page.get_by_role("group", name="Models").get_by_role("checkbox")
    for box in await boxes.all():
        await box.set_checked(await box.get_attribute("value") == ELSEWHERE)
    await page.get_by_role("button", name="Ask").click()
    await page.get_by_role("status").get_by_text("decided").wait_for()
    assert await page.get_by_role("group", name="The answer").inner_text() == "Paris"
    await page.goto("/dashboard/workers")
    await page.get_by_role("button", name=f"Cordon {WORKER}", exact=True).click()
    await row.get_by_role("cell", name="drained", exact=True).wait_for()
    await page.get_by_role("button", name=f"Uncordon {WORKER}").click()
    await row.get_by_role("cell", name="works", exact=True).wait_for()
    await surely(page, f"Remove {WORKER}", f"{WORKER} is removed")
    await page.get_by_text("There are no external workers.").wait_for()


async def runs_are_looked_at(page: Page) -> None:
    """Two runs side by side, then the questions of one, then those about which agents disagree."""
    await page.goto("/dashboard/runs")
    await page.get_by_role("link", name=EVALUATION).click()
    await page.get_by_label("beside").select_option(LOAD_TEST)
    await page.get_by_role("button", name="Show").click()
    await page.get_by_role("heading", name=LOAD_TEST).wait_for()
    await page.get_by_role("cell", name="87.5 %").wait_for()
    await page.get_by_role("link", name="Each question").click()
    await page.get_by_text("1 to 2 of 2.").wait_for()
    await page.get_by_label("Show").select_option("agents disagree")
    await page.get_by_role("button", name="Show").click()
    await page.get_by_text("1 to 1 of 1.").wait_for()
    said = page.get_by_role("region", name="What was said to set q1")
    assert await said.get_by_role("cell", name="wrong").count() == 2  # an agent and a strategy


async def the_database_is_asked(page: Page) -> None:
    """A query that comes with Choir, its chart, a statement of one's own, what is wrong with one, a file."""
    await page.goto("/dashboard/queries")
    await page.get_by_label("A query that comes with Choir").select_option("latency_by_model")
    await page.get_by_role("button", name="Ask it").click()
    rows = page.get_by_role("region", name="Table of the rows")
    await rows.get_by_role("cell", name="choir-two").first.wait_for()
    await charts_are_drawn(page)
    await page.get_by_role("textbox", name="until").fill("1971-01-01")
    await page.get_by_role("button", name="Ask again").click()
    await page.get_by_text(re.compile("^0 rows")).wait_for()
    await page.get_by_text("A statement of your own").click()
    statement = page.locator("textarea[name=sql]")
    await statement.fill("SELECT nothing FROM nowhere")
    await page.get_by_role("button", name="Ask", exact=True).click()
    await page.get_by_role("alert").get_by_text("nowhere").wait_for()
    await statement.fill("SELECT 42 AS answer")
    await page.get_by_role("button", name="Ask", exact=True).click()
    await rows.get_by_role("cell", name="42").wait_for()
    async with page.expect_download() as coming:
        await page.get_by_role("link", name="csv").click()
    assert (await (await coming.value).path()).read_text().split() == ["answer", "42"]


async def test_a_way_through_requests_nodes_workers_runs_and_queries(live_mesh: str, tmp_path: Path) -> None:
    write_runs(tmp_path)
    problems: list[str] = []
    async with (
        serving(live_mesh, results=tmp_path) as url,
        Choir(live_mesh) as mesh,
        chromium() as browser,
        opened(url, problems, browser, accept_downloads=True) as page,
    ):
        await requests_come_in(page, mesh)
        await an_agent_is_taken_out_and_let_in(page)
        await a_worker_comes_and_goes(page, int(url.rpartition(":")[2]))
        await runs_are_looked_at(page)
        await the_database_is_asked(page)
    assert problems == []


async def test_a_page_whose_key_ends_says_so_keeps_what_it_shows_and_takes_another(
    locked: httpx.AsyncClient, make_key: MakeKey, live_mesh: str
) -> None:
    secrets = [await make_key(scopes=("observe",)) for _ in range(2)]
    problems: list[str] = []

    async def enter(page: Page, secret: str) -> None:
        await page.get_by_label("API key").fill(secret)
        await page.get_by_role("button", name="Enter").click()

    async with opened(str(locked.base_url).rstrip("/"), problems) as page, Choir(live_mesh) as mesh:
        await page.goto("/dashboard")
        await enter(page, "choir-k-guess")
        await page.get_by_text("That key is not valid.").wait_for()
        await enter(page, secrets[0])
        model = page.get_by_role("rowheader", name="choir-one")
        await model.wait_for()
        await mesh.keys(ManageKeys(action="revoke", id=secrets[0].removeprefix("choir-")[:-44]))
        await page.get_by_text("Your API key or your login has ended").wait_for()
        assert await model.count() == 1
        await page.get_by_role("link", name="Show another one").click()
        await enter(page, secrets[1])
        await model.wait_for()
    assert [problem for problem in problems if "401" not in problem] == []


async def test_a_way_through_admin(
    connection: Client, mesh_url: str, spawn_service: SpawnService, tmp_path: Path
) -> None:
    spawn_service("router", "router-1")
    tenants = await connection.jetstream().key_value(subjects.TENANTS_BUCKET)
    await tenants.put(subjects.tenant_key("alice"), Tenant(name="alice").to_bytes())
    hosts = await connection.jetstream().key_value(subjects.HOSTS_BUCKET)
    host = Host(name="attic", public_key="U" + "A" * 55, instances=(), created_at_s=1e9)
    await hosts.put(subjects.host_key("attic"), host.to_bytes())
    await start_desk(connection, tmp_path / "state")
    problems: list[str] = []
    async with serving(mesh_url) as url, opened(url, problems) as page:
        await page.goto("/dashboard/admin")
        await page.get_by_text("There are no keys.").wait_for(timeout=PATIENCE_MS)
        await page.get_by_label("Whose it is, or what for").fill("<b>a program</b>")
        await page.get_by_label("Good for, days").fill("1")
        await page.get_by_role("button", name="Make it").click()
        secret = await page.get_by_role("group", name="The secret").inner_text()
        key = page.get_by_role("row", name="<b>a program</b>")
        await key.get_by_text("good, for").wait_for()
        key_id = secret.removeprefix("choir-")[:10]
        await surely(page, f"Revoke {key_id}", f"{key_id} opens nothing any more")
        await key.get_by_text("revoked").wait_for()
        await page.get_by_role("button", name=f"Forget {key_id}").click()
        await page.get_by_text("There are no keys.").wait_for()
        await page.get_by_label("Requests at a time of alice").fill("3")
        await page.get_by_role("button", name="Set the limits of alice").click()
        await page.get_by_text("alice has these limits now").wait_for()
        stored = Tenant.read((await tenants.get(subjects.tenant_key("alice"))).value or b"")
        assert stored.limits.requests_in_flight == 3
        await page.get_by_label("Name", exact=True).fill("bob")
        await page.get_by_role("button", name="Make the line").click()
        assert (await page.get_by_role("group", name="The line").inner_text()).startswith("choir1-")
        await surely(page, "Revoke alice", "alice is let in no more")
        await surely(page, "Revoke attic", "the host attic is let in no more")
        await page.get_by_role("row", name="attic").get_by_text("revoked").wait_for()
        await page.reload()
        await page.get_by_text("There are no keys.").wait_for()
        shown = await page.content()
        assert secret not in shown and "choir1-" not in shown
    assert problems == []


async def test_a_login_that_is_too_old_is_made_anew_beside_the_page(
    live_mesh: str, make_key: MakeKey, locked: httpx.AsyncClient
) -> None:
    secret = await make_key(scopes=KEY_SCOPES)
    url = str(locked.base_url)
    old = {"choir_key": secret, "choir_login": login_of(secret, 0.0)}
    async with opened(url, []) as page:
        # Given a page that somebody opened long ago
        host, path = locked.base_url.host, "/dashboard"
        for name, value in old.items():
            await page.context.add_cookies([{"name": name, "value": value, "domain": host, "path": path}])
        await page.goto("/dashboard/nodes")
        row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="sleeper", exact=True))
        await row.get_by_role("button", name="Cordon sleeper").click()

        # When it is told to show the key again, and does so on another page
        await page.get_by_text("the login is not fresh").wait_for()
        async with page.context.expect_page() as coming:
            await page.get_by_role("link", name="show the key, and come back").click()
        login = await coming.value
        await login.get_by_label("API key").fill(secret)
        await login.get_by_role("button", name="Enter").click()
        await login.get_by_role("heading", name="Admin").first.wait_for()

        # Then the first one goes on
        await row.get_by_role("button", name="Cordon sleeper").click()
        await row.get_by_role("button", name="Let in again sleeper").click()
        await row.get_by_role("button", name="Cordon sleeper").wait_for()

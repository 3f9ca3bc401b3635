"""The pages that take hosts out of work, and those that say what is kept and loaded where."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from nats.aio.client import Client

from infra.testing.mesh import eventually
from infra.testing.plugin import SpawnService
from schemas.errors import ModelUnusable, Overloaded
from schemas.nodes.lease import NodeLease, ServedModel
from schemas.nodes.model_store import (
    ModelCopy,
    ModelFile,
    Origin,
    StoredModel,
    StoreEntry,
    StoreJob,
    StoreReply,
)
from schemas.nodes.workers import WorkerState
from schemas.pipelines.plan import PipelineSummary, StageSummary
from schemas.replies import StatusReply
from services.gateway.dashboard.mesh.advice import advised
from services.gateway.dashboard.mesh.map import drawing_of
from services.gateway.dashboard.mesh.page import parts_of
from services.gateway.dashboard.mesh.view import MeshView
from services.gateway.dashboard.shell.pages import fragment
from services.gateway.tests.serving import serving
from services.modelstore.tests.stores import small_model, spawn_store

CHANGE = "/dashboard/actions/nodes/change"
STORE = "/dashboard/actions/models/change"


async def test_an_agent_is_cordoned_drained_and_let_in_again(http: httpx.AsyncClient) -> None:
    async def says(words: str) -> bool:
        return words in (await http.get("/dashboard/nodes")).text

    assert await says('aria-label="Cordon sleeper"')
    try:
        told = await http.post(CHANGE, json={"instance": "sleeper", "action": "cordon"})
        assert told.json()["words"] == "sleeper gets nothing new; it finishes what it has"
        assert await says("cordoned") or await says("drained")
        assert "choir-slow" not in (await http.get("/v1/models")).text
        await http.post(CHANGE, json={"instance": "sleeper", "action": "drain"})
        await eventually(lambda: says("<td>drained</td>"))
    finally:
        let_in = await http.post(CHANGE, json={"instance": "sleeper", "action": "uncordon"})
    assert let_in.json()["words"] == "sleeper gets work again"
    await eventually(lambda: says('aria-label="Cordon sleeper"'))
    refused = await http.post(CHANGE, json={"instance": "nobody", "action": "drain"})
    assert refused.status_code == 400 and "there are: quartet, sleeper" in refused.text


async def test_a_mesh_without_a_store_says_so_and_what_is_loaded(http: httpx.AsyncClient) -> None:
    page = (await http.get("/dashboard/models")).text
    assert "No store runs in the mesh" in page and "choir-one" in page and "sleeper" in page


def test_a_model_on_demand_can_be_loaded_and_says_how_long_it_stays() -> None:
    room = {"memory_bytes": 2**30, "budget_bytes": 4 * 2**30}
    states: dict[str, dict[str, object]] = {"asleep": {"state": "unloaded"},
        "awake": {"state": "loaded", "unload_at_s": 2e9}, "kept": {"state": "loaded"}}  # fmt: skip
    models = [
        *(
            {"name": name, "backend": "b", "slots": 1, "on_demand": {**room, **how}}
            for name, how in states.items()
        ),
        {"name": "fixed", "backend": "b", "slots": 1},
    ]
    html = fragment("models/loaded.html.j2", nodes=[node("attic", "host", models=models)], problem=None)
    assert 'aria-label="Load asleep at attic"' in html and "How long asleep stays at attic" in html
    assert 'aria-label="Unload awake at attic"' in html and 'data-at="2000000000"' in html
    assert "until its room is needed</td>" in html and "fixed at attic" not in html
    assert "2.0 GiB of 4.0 GiB" in html


def test_a_job_tells_how_far_it_is_and_a_model_can_be_copied_to_hosts_that_have_not_all_of_it() -> None:
    known = {"kind": "pull", "instance": "attic-store", "host": "attic"}
    broken = ModelUnusable("<b>no</b> GGUF").body()
    jobs = (
        StoreJob(
            id="1",
            model="one",
            state="running",
            done_bytes=2**20,
            total_bytes=2**22,
            bytes_per_s=2**19,
            **known,
        ),
        StoreJob(id="2", model="two", state="failed", total_bytes=2**22, problem=broken, **known),
        StoreJob(id="3", model="three", **known),
    )
    one, two, three = (
        fragment("models/jobs.html.j2", jobs=jobs, spaces=()).split("<tbody>")[1].split("</tr>")[:3]
    )
    assert (
        '<progress max="4194304" value="1048576" aria-label="pull one">' in one
        and "1.0 MiB of 4.0 MiB" in one
    )
    assert "512.0 KiB</td>" in one and "6.0 s</td>" in one and 'aria-label="Cancel pull one"' in one
    assert "failed: &lt;b&gt;no&lt;/b&gt; GGUF" in two and "Cancel" not in two
    assert '<progress max="1" value="0" aria-label="pull three">' in three and "Cancel" in three
    copies = tuple(
        ModelCopy(instance=f"{host}-store", host=host, whole=whole, live=True)
        for host, whole in (("attic", True), ("cellar", False))
    )
    origin = Origin(kind="local", place="/srv/little.gguf")
    file = ModelFile(name="little.gguf", size_bytes=2**22, sha256="0" * 64)
    model = StoredModel(name="little", files=(file,), architecture="llama", origin=origin, added_at_s=1.0)
    kept = StoreReply(models=(StoreEntry(model=model, copies=copies),))
    html = fragment("models/kept.html.j2", kept=kept, stores=["attic", "cellar", "loft"], problem=None)
    others = html.split('aria-label="Where to copy little">')[1].split("</select>")[0]
    assert others == "<option>cellar</option><option>loft</option>" and "cellar</bdi>, a part" in html
    alone = fragment("models/kept.html.j2", kept=kept, stores=["attic"], problem=None)
    assert "Copy little" not in alone and 'aria-label="Delete little everywhere"' in alone


@pytest.mark.soak
async def test_a_model_is_added_kept_and_given_up_from_its_page(
    connection: Client, mesh_url: str, spawn_service: SpawnService, tmp_path: Path
) -> None:
    model = small_model(tmp_path / "small.gguf", layers=1, width=32)
    spawn_service("router", "router-1")
    spawn_store(spawn_service, "attic", tmp_path / "store")
    async with serving(mesh_url) as url, httpx.AsyncClient(base_url=url, timeout=60) as http:

        async def shows(words: str) -> bool:
            return words in (await http.get("/dashboard/models")).text

        async def has(**fields: object) -> httpx.Response:
            return await http.post(STORE, json=fields)

        await eventually(lambda: shows('<button name="action" value="add">'))
        added = await has(action="add", store="attic", path=str(model), name="<small>")
        assert added.json()["words"] == f"{model} is being added; how far it is stands above"
        await eventually(lambda: shows('aria-label="Delete &lt;small&gt; everywhere"'))
        last = await has(action="remove", store="attic", name="<small>")
        assert last.status_code == 400 and "gives the model up" in last.text
        kept = await has(action="copies", name="<small>", min_copies=2)
        assert kept.json()["words"] == "<small> is to be on at least 2 hosts"
        unknown = await has(action="pull", store="attic", name="nothing")
        assert unknown.status_code == 404 and "nothing" in unknown.text
        gone = await has(action="everywhere", name="<small>")
        assert gone.json()["words"] == "<small> is given up: no store has it any more"
        await eventually(lambda: shows("Nothing yet."))


def node(instance: str, host: str, service: str = "agent", *models: str, **fields: object) -> NodeLease:
    served = tuple(ServedModel(name=name, backend="instant", slots=2) for name in models)
    known = {
        "pid": 1,
        "version": "1",
        "state": "ready",
        "started_at_s": 0.0,
        "seen_at_s": 0.0,
        "models": served,
    }
    return NodeLease.model_validate(
        {"service": service, "instance": instance, "host": host, **known, **fields}
    )


def test_what_is_wrong_is_told_with_what_to_do_about_it() -> None:
    away = ModelUnusable("nobody answers").body()
    server = WorkerState(id="mac-7", type="ollama", url="http://mac-7:1", circuit="open")
    external = ServedModel(name="gamma", backend="ollama", slots=0, worker=server, problem=away)
    nodes = (
        node("one", "attic", models=(external,)),
        node("two", "<b>cellar", state="broken", problem=away),
        node("s0", "attic", "shard_stage", problem=away),
        node("router", "attic", "router", problem=Overloaded("too slow", retry_after_s=1).body()),
    )
    lines = {
        "one: gamma: nobody answers": ("start that server, or correct the worker or remove it", "workers"),
        "two: nobody answers": ("choir validate on <b>cellar says what to change there", "nodes"),
        "s0: nobody answers": ("choir validate on attic", "pipelines"),
        "host attic is cordoned, by x: `choir uncordon attic` lets it in again": ("", "nodes"),
        "large has no node for stage 1; start what is missing": ("", "pipelines"),
        "router: too slow": ("", None),
        "host attic: its clock is 9 s ahead of the broker's": ("", None),
    }
    status = StatusReply(services={}, models=(), slots=0, busy=0, queued=0, results=0, problems=tuple(lines))
    broken = PipelineSummary(
        model="large", state="broken", epoch=1, slots=1, stages=(), predicted_ms=2.0, why="a test",
        context_tokens=100, dtype="f32", partition="adaptive",
        problem="large has no node for stage 1; start what is missing",
    )  # fmt: skip
    view = MeshView(status=status, nodes=nodes, pipelines=(broken,))
    for problem, (advice, page) in zip(advised(view), lines.values(), strict=True):
        assert (problem.page.name if problem.page else None) == page, problem.line
        assert problem.advice.startswith(advice) and bool(problem.advice) == bool(advice), problem.line
    html = parts_of(view)["problems"]
    assert '(<a href="/dashboard/workers">Workers</a>)' in html and "<b>" not in html


def test_the_map_has_every_host_its_services_and_the_way_through_a_pipeline() -> None:
    offer = {"models": (), "memory_bytes": 1, "threads": 1, "hop_ms": 0.1}
    held = [
        {
            "model": "large",
            "epoch": 1,
            "stage": k,
            "first_layer": 6 * k,
            "end_layer": 6 * k + 6,
            "ready": True,
        }
        for k in (0, 1)
    ]
    nodes = (
        node("one", "attic", "agent", "a", "b", "c", "d", "e", slots=4, busy=2),
        node("router", "attic", "router"),
        node("s0", "attic", "shard_stage", stage={**offer, "held": held[0]}),
        node("s1", "cellar", "shard_stage", stage={**offer, "held": held[1]}, cordon="drain"),
        *(node(f"x{n}", "crowd", "router") for n in range(20)),
    )
    stages = tuple(
        StageSummary(
            instance=f"s{k}", host=host, first_layer=6 * k, end_layer=6 * k + 6, alive=True, ready=True,
            predicted_ms=1.0,
        )
        for k, host in enumerate(("attic", "cellar"))
    )  # fmt: skip
    pipeline = PipelineSummary(
        model="large", state="ready", epoch=1, slots=1, stages=stages, predicted_ms=2.0, why="a test",
        context_tokens=100, dtype="f32", partition="adaptive",
    )  # fmt: skip
    hosts = {host: tuple(n for n in nodes if n.host == host) for host in ("attic", "cellar", "crowd")}
    view = MeshView(nodes=nodes, pipelines=(pipeline,), hosts=hosts)
    drawn = drawing_of(view)
    words = [box.words for box in drawn.boxes]
    assert "agent one, ready, 2 of 4 slots busy: a, b, c, and 2 more" in words
    assert "shard stage s1, resting: large: layers 6 to 11" in words and "8 more services" in words
    assert [arrow.words for arrow in drawn.arrows] == ["large: s0 hands on to s1"]
    assert [host.lines[0] for host in drawn.hosts] == ["attic", "cellar", "crowd"]
    for box in (*drawn.hosts, *drawn.boxes):
        assert 0 < box.x < box.x + box.width < drawn.width and box.y + box.height < drawn.height
    inner = [(box.x, box.y, box.height) for box in drawn.boxes]
    for x, y, height in inner:
        assert not [1 for other, top, _ in inner if other == x and y < top < y + height]
    html = parts_of(view)["map"]
    assert html.count('role="img"') == len(drawn.boxes) + 1 and 'aria-label="large: s0' in html
    hostile = node("<script>" * 9, "<b>" * 40, "agent", "</svg><script>")
    html = parts_of(MeshView(nodes=(hostile,), hosts={hostile.host: (hostile,)}))["map"]
    assert "<script" not in html and "<b>" not in html and html.count("</svg>") == 1

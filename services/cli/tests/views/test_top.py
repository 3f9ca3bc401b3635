"""`choir top`: what it shows, on any screen, live and once."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from infra.testing.choir_up import choir_command, clean_environment
from schemas.nodes.lease import NodeLease
from schemas.replies import ModelQueue
from services.cli.tests.conftest import Cli
from services.cli.tests.pseudo_terminal import Terminal, on_terminal
from services.cli.top.panes import NODES, Look, of
from services.cli.top.rows import NodeRow, model_rows, stage_rows, worker_rows
from services.cli.top.snapshot import NO_METRICS, Rates, Snapshot, node_row, rates_of
from services.cli.top.view import screen

RATES = Rates(
    window_s=10, requests_per_s=12.3, tokens_per_s=1234.5, failed=2, refused=1, error_share=0.024,
    p50_ms=8.25, p95_ms=1234.0,
)  # fmt: skip


def a_node(number: int, service: str = "agent", **more: object) -> NodeRow:
    fields = {
        "instance": f"{service}-with-a-long-name-{number}", "service": service, "host": "a-host-somewhere",
        "state": "ready", "slots": 4, "busy": 1, "cpu_percent": 99.5, "memory_used_bytes": 3 * 1024**3,
        "gpu_percent": 87.0, "tasks_per_s": 3.1, "tokens_per_s": 99.9, "broker_rtt_ms": 0.23,
    }  # fmt: skip
    return NodeRow.model_validate({**fields, **more})


def a_snapshot(nodes: int = 4, **more: object) -> Snapshot:
    rows = (a_node(0, "router", slots=0), *(a_node(number) for number in range(nodes)))
    fields = {
        "at_s": 1_750_000_000.0, "url": "nats://127.0.0.1:4222", "services": {"agent": nodes, "router": 1},
        "models": ("alpha", "beta"), "slots": 16, "busy": 4, "queued": 7, "nodes": rows, "rates": RATES,
    }  # fmt: skip
    return Snapshot.model_validate({**fields, **more})


def drawn(snapshot: Snapshot, width: int, height: int, trail: Sequence[float] = ()) -> list[str]:
    out = Console(file=io.StringIO(), width=width, height=height, highlight=False, markup=False)
    out.print(screen(snapshot, width, height, "q quits", trail=trail))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (60, 12)])
@pytest.mark.parametrize("nodes", [1, 4, 200])
def test_it_fits_every_screen(width: int, height: int, nodes: int) -> None:
    snapshot = a_snapshot(nodes, problems=("agent-1: a very long complaint " * 9,) * 9)
    lines = drawn(snapshot, width, height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    assert lines[-1].startswith("q quits")
    if nodes == 200:
        assert any("more" in line for line in lines)


def test_the_figures_stand_where_one_looks_for_them() -> None:
    lines = drawn(a_snapshot(), 120, 40)
    assert "requests 12.3/s   tokens 1234.5/s   p50 8.2 ms   p95 1,234 ms   errors 3 (2.4%)" in lines[1]
    assert "4/16" in lines[2] and "queued 7" in lines[2] and lines[2].count("█") == 5
    agent = next(line for line in lines if line.startswith("agent-"))
    assert [cell for cell in ("1/4", "100 %", "3.0 GiB", "87 %", "0.2 ms") if cell not in agent] == []


def test_beside_the_panes_stands_how_requests_have_gone() -> None:
    trail = (9.0, 0.0, 2.0, 3.5, 7.0)
    assert drawn(a_snapshot(), 80, 24, trail)[3].endswith("requests/s █▁▃▄▆")
    assert drawn(a_snapshot(), 80, 24, [0.0] * 100)[3].endswith("requests/s " + "▁" * 23)
    for width, went in ((56, trail), (80, ())):
        assert "requests/s" not in drawn(a_snapshot(), width, 24, went)[3]


def test_agents_come_first() -> None:
    lines = drawn(a_snapshot(2), 120, 40)
    assert [line.split("-")[0] for line in lines[5:8]] == ["agent", "agent", "router"]


def test_without_a_metrics_service_the_rest_is_shown_and_it_says_what_is_missing() -> None:
    bare = a_node(1, tasks_per_s=None, tokens_per_s=None, broker_rtt_ms=None)
    snapshot = a_snapshot(rates=None, missing=(NO_METRICS,)).model_copy(update={"nodes": (bare,)})
    lines = drawn(snapshot, 80, 24)
    assert "requests -" in lines[1] and "4/16" in lines[2]
    assert any("no metrics service" in line for line in lines)


def test_nobody_asked_means_no_errors_and_no_latency() -> None:
    row = {"requests": 0, "failed": 0, "refused": 0, "tokens": 0, "p50_ms": None, "p95_ms": None}
    rates = rates_of(row, 10)
    assert (rates.requests_per_s, rates.error_share, rates.p50_ms) == (0.0, 0.0, None)
    refused_only = rates_of({**row, "refused": 5}, 10)
    assert refused_only.error_share == 1.0


def test_an_agent_that_did_nothing_has_a_rate_of_zero_and_a_router_has_none() -> None:
    lease = NodeLease(
        service="agent", instance="a", host="h", pid=1, version="0", state="ready",
        started_at_s=0.0, seen_at_s=0.0,
    )  # fmt: skip
    assert node_row(lease, None, RATES, 10).tokens_per_s == 0.0
    assert node_row(lease.model_copy(update={"service": "router"}), None, RATES, 10).tokens_per_s is None
    assert node_row(lease, {"tasks": 5, "tokens": 50}, RATES, 10).tokens_per_s == 5.0


def test_once_as_json_is_one_document_of_what_is_there(cli: Cli) -> None:
    assert cli("ask", "What is the capital of France?", "--model", "choir-one").code == 0
    deadline_s = time.monotonic() + 180
    while True:
        outcome = cli("top", "--once", "--json", "--window", "600")
        shown = Snapshot.model_validate_json(outcome.out)
        if (shown.rates is not None and shown.rates.p50_ms) or time.monotonic() > deadline_s:
            break
    assert outcome.code == 0 and shown.missing == ()
    assert shown.rates is not None and shown.rates.requests_per_s > 0 and shown.rates.p50_ms is not None
    assert {"router", "agent", "aggregator", "metrics"} <= set(shown.services)
    quartet = next(node for node in shown.nodes if node.instance == "quartet")
    assert quartet.tokens_per_s is not None and quartet.tokens_per_s > 0
    assert quartet.broker_rtt_ms is None or 0 < quartet.broker_rtt_ms < 60_000


def test_without_a_terminal_it_looks_once(cli: Cli) -> None:
    outcome = cli("top")
    assert outcome.code == 0 and "quartet" in outcome.out and "\x1b" not in outcome.out


def test_without_a_mesh_it_says_so(offline_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHOIR_MESH__URL", "nats://127.0.0.1:1")
    outcome = offline_cli("top", "--once", "--json")
    assert outcome.code == 3
    assert json.loads(outcome.out)["error"]["code"] == "mesh_unreachable"


@pytest.fixture
def env(live_mesh: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a command against the live mesh."""
    return clean_environment(tmp_path, CHOIR_MESH__URL=live_mesh)


ENTER_SCREEN, LEAVE_SCREEN, ERASE_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[2J"


def frames(terminal: Terminal) -> int:
    """How often the picture was drawn."""
    return terminal.text.count("choir top")


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_it_draws_in_place_until_somebody_quits(env: dict[str, str], key: str) -> None:
    with on_terminal(choir_command("top", "--interval", "0.2"), env, columns=80) as terminal:
        terminal.wait_for("q quits")
        terminal.wait_for("requests/s ")
        deadline_s = time.monotonic() + 180
        while frames(terminal) < 3 and time.monotonic() < deadline_s:
            terminal._read()
        assert frames(terminal) >= 3
        terminal.type(key)
        assert terminal.exit_code() == 0
        written = terminal._raw
    assert written.count(ENTER_SCREEN) == written.count(LEAVE_SCREEN) == 1
    assert ERASE_SCREEN not in written  # a screen that is wiped before it is drawn flickers


def leases() -> tuple[NodeLease, ...]:
    """An agent with a file and a worker, and the two stages of a pipeline."""
    common = {"pid": 1, "version": "0", "state": "ready", "started_at_s": 0.0, "seen_at_s": 0.0, "host": "h"}
    state = {"id": "mac-01", "type": "lm_studio", "url": "http://mac-01:1234", "circuit": "open"}
    models = [
        {"name": "phi", "backend": "llama_cpp", "slots": 4, "busy": 1, "tokens_per_s": 30.0,
         "file": "phi.gguf", "size_bytes": 2 * 1024**3, "quantisation": "Q4_K_M"},
        {"name": "qwen", "backend": "lm_studio", "slots": 3, "busy": 2, "worker": state},
    ]  # fmt: skip
    held = {"model": "large", "epoch": 1, "first_layer": 0, "end_layer": 12, "ready": True, "step_ms": 9.5}
    stages = [
        {"service": "shard_stage", "instance": f"stage-{number}", "slots": 8, "busy": 9 - number, **common,
         "stage": {"models": (), "memory_bytes": 1, "threads": 1, "hop_ms": 0.1,
                   "held": {**held, "stage": number, "tokens_per_s": 41.5 + number}}}
        for number in (1, 0)
    ]  # fmt: skip
    agent = {"service": "agent", "instance": "lab", "slots": 7, "busy": 3, "models": models, **common}
    return tuple(NodeLease.model_validate(each) for each in (agent, *stages))


def a_look(**more: object) -> Snapshot:
    """A snapshot of these leases."""
    nodes = leases()
    return a_snapshot(0, **more).model_copy(
        update={
            "nodes": tuple(node_row(node, None, None, 10) for node in nodes),
            "served": model_rows(nodes, {"phi": ModelQueue(waiting=1_250, in_work=1)}),
            "workers": worker_rows(nodes),
            "stages": stage_rows(nodes),
        }
    )


def pane(key: str, width: int = 120) -> list[str]:
    """The lines of one pane."""
    out = Console(file=io.StringIO(), width=width, height=40, highlight=False, markup=False)
    out.print(screen(a_look(), width, 40, "q quits", Look().after(key)))
    assert isinstance(out.file, io.StringIO)
    return [line.rstrip() for line in out.file.getvalue().splitlines()]


def test_an_external_server_stands_on_its_own_and_not_in_its_agent() -> None:
    agent = next(line for line in pane("n") if line.startswith("lab"))
    assert "1/4" in agent
    (worker,) = (line for line in pane("w") if line.startswith("mac-01"))
    assert [cell for cell in ("lm_studio", "qwen", "out", "2/3", "lab") if cell not in worker] == []


def test_models_have_a_pane_with_file_size_and_quantisation() -> None:
    (phi,) = (line for line in pane("m") if line.startswith("phi"))
    assert [
        cell for cell in ("lab", "1/4", "1,250", "30.0", "2.0 GiB", "Q4_K_M", "phi.gguf") if cell not in phi
    ] == []
    (qwen,) = (line for line in pane("m") if line.startswith("qwen"))
    assert "mac-01" in qwen


@pytest.mark.parametrize("width", [80, 120])
def test_a_pipeline_shows_each_stage_with_its_tokens_per_second(width: int) -> None:
    first, second = (line for line in pane("p", width) if line.startswith("large"))
    assert [cell for cell in ("0-11", "stage-0", "9.5 ms", "41.5") if cell not in first] == []
    assert "stage-1" in second
    assert "pipelines 1" in pane("p", width)[3]


def test_the_first_stage_of_a_pipeline_is_told_to_do_its_tasks() -> None:
    _, second, first = leases()
    done = {"tasks": 5, "tokens": 50}
    assert node_row(first, done, RATES, 10).tasks_per_s == 0.5
    assert node_row(first, None, RATES, 10).tasks_per_s == 0.0
    assert node_row(first, done, None, 10).tasks_per_s is None
    assert node_row(second, None, RATES, 10).tasks_per_s is None


def test_more_work_than_slots_is_told_as_what_waits() -> None:
    assert [of(3, 8), of(8, 8), of(9, 8), of(0, 0)] == ["3/8", "8/8", "8/8+1", "-"]
    assert "8/8+1" in next(line for line in pane("p") if line.startswith("large"))
    assert "20/20+1" in drawn(a_look(slots=20, busy=21), 80, 24)[2]


def test_keys_choose_a_pane_and_the_column_it_is_sorted_by() -> None:
    look = Look()
    assert [look.after(key).pane for key in "nmwp"] == [0, 1, 2, 3]
    assert look.after("\t").pane == 1 and Look(3).after("\t").pane == 0
    by_name = look.after("s")
    assert by_name.sorted_by == "instance"
    assert [row.instance for row in by_name.rows(a_look())] == ["lab", "stage-0", "stage-1"]
    assert [row.instance for row in by_name.after("r").rows(a_look())] == ["stage-1", "stage-0", "lab"]
    assert by_name.after("m") == Look(1), "another pane comes as it comes"
    assert by_name.after("x") == by_name
    for _ in NODES.columns:
        look = look.after("s")
    assert look.after("s").column is None


def test_a_key_changes_the_picture_at_once(env: dict[str, str]) -> None:
    with on_terminal(choir_command("top", "--interval", "30"), env, columns=120) as terminal:
        terminal.wait_for("q quits")
        terminal.type("m")
        terminal.wait_for("served by")
        terminal.type("ss")
        terminal.wait_for("sort: served by")
        terminal.type("q")
        assert terminal.exit_code() == 0

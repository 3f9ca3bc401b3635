"""`choir up` for people: what they are told, what is kept for later, and what Ctrl-C does at every moment."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from rich.console import Console
from rich.spinner import Spinner

from infra.host.children.forward import Forward
from infra.testing.choir_up import choir_command, clean_environment, quick_choir, starting_for_ever
from infra.testing.switched_off import switched_off
from services.cli.tests.conftest import Cli
from services.cli.tests.pseudo_terminal import on_terminal
from services.cli.up.entry import GraveLines, read
from services.cli.up.log_file import LogFile
from services.cli.up.own_log import forward_own_log
from services.cli.up.screen import Mode, Screen

pytestmark = pytest.mark.long

GRACE_S = 180.0
CONFIG = """
[broker]
port = 0
[[agents]]
name = "pair"
backend = "instant"
models = [{ name = "choir-one", reply = "Paris" }]
[[agents]]
name = "broken"
models = [{ name = "choir-gone", path = "nowhere.gguf" }]
""" + switched_off("aggregator", "summarizer", "metrics")
INFO = "2026-11-21T14:29:00.123456Z [info     ] ready                          instance=a service=agent url=x"
ERROR = (
    "2026-11-21T14:29:00.123456Z [error    ] no disk                        instance=a left=3 service=agent"
)
CHATTER = "2026-11-21T14:29:00.123456Z [warning  ] llama_kv_cache: full size      instance=a service=agent"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A choir.toml with one model that can be asked and one that cannot."""
    path = tmp_path / "choir.toml"
    path.write_text(CONFIG)
    return path


def test_a_person_is_told_what_runs_what_is_wrong_and_what_to_type(config: Path, tmp_path: Path) -> None:
    log = tmp_path / "choir" / "up.log"
    with ExitStack() as held:
        taken = held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        gateway = {"CHOIR_GATEWAY__ENABLED": "true", "CHOIR_GATEWAY__PORT": str(taken)}
        up = choir_command("up", "--config", str(config))
        t = held.enter_context(on_terminal(up, clean_environment(tmp_path, **gateway), 100))
        # Given a mesh that has started, beside somebody who has the gateway's port
        t.wait_for("stops the mesh", 120)
        shown = t.text
        # A sign of life turned meanwhile
        assert any(f"{frame} starting, 2 models to load" in shown for frame in Spinner("dots").frames)
        # Then the screen names configuration, log, models and the next command, and what is wrong
        for part in (str(config), str(log), "models  choir-one\n", "choir-gone cannot be asked", "choir ask"):
            assert part in shown.replace("\n", " ") or part in shown
        assert f"cannot listen at 127.0.0.1:{taken}" in shown.replace("\n", " ")
        # But no address at which nobody answers
        assert "for clients of" not in shown and "curl" not in shown
        # And not what only a log has
        for noise in ("instance=", "service=", "[info"):
            assert noise not in shown
        assert "ready" in log.read_text() and "instance=" in log.read_text()
        # When Ctrl-C is typed, then it stops
        t.type("\x03")
        assert t.exit_code(GRACE_S) == 0
        assert "stopping" in t.text and t.text.rstrip().endswith("stopped")


def test_ctrl_c_in_the_middle_of_the_start_stops_what_was_started(config: Path, tmp_path: Path) -> None:
    up = starting_for_ever(quick_choir("up", "--config", str(config)))
    with on_terminal(up, clean_environment(tmp_path), 80) as t:
        t.wait_for("starting")
        children: list[psutil.Process] = []
        while len(children) < 3:  # the broker and the first services
            assert t.process.poll() is None, t.text
            children = psutil.Process(t.process.pid).children(recursive=True)
            time.sleep(0.02)
        t.type("\x03")
        assert t.exit_code(GRACE_S) == 130, t.text
        assert "stopping what was started" in t.text
        assert "Traceback" not in t.text
    _, alive = psutil.wait_procs(children, timeout=GRACE_S)
    assert not alive


@pytest.mark.soak
def test_a_second_ctrl_c_kills_what_does_not_stop(config: Path, tmp_path: Path) -> None:
    with on_terminal(choir_command("up", "--config", str(config)), clean_environment(tmp_path), 100) as t:
        t.wait_for("stops the mesh", 120)
        children = psutil.Process(t.process.pid).children(recursive=True)
        # Given a service that cannot stop
        agent = next(child for child in children if "services.agent" in " ".join(child.cmdline()))
        agent.suspend()
        t.type("\x03")
        t.wait_for("Ctrl-C again kills what is left")
        # When Ctrl-C is typed again, then it is not waited for as long as a service may take
        t.type("\x03")
        assert t.exit_code(GRACE_S) == 0, t.text
        assert t.text.rstrip().endswith("stopped") and "Traceback" not in t.text
        assert "did not stop within" not in (tmp_path / "choir" / "up.log").read_text()
    _, alive = psutil.wait_procs(children, timeout=GRACE_S)
    assert not alive


@pytest.mark.soak
def test_programs_get_a_document_when_it_is_ready_and_one_when_it_has_stopped(
    config: Path, tmp_path: Path
) -> None:
    environment = clean_environment(tmp_path)
    up = subprocess.Popen(
        choir_command("up", "--config", str(config), "--json"),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert up.stdout is not None
    lines = [up.stdout.readline()]
    while lines[-1] not in ("}\n", ""):
        lines.append(up.stdout.readline())
    document = json.loads("".join(lines))
    assert (document["pid"], document["models"]) == (up.pid, ["choir-one"])
    assert document["config"] == str(config)
    assert "choir-gone" in document["problems"][0]
    down = subprocess.run(
        choir_command("down", "--json"), env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(down.stdout) == {"stopped": True, "url": document["url"], "pid": up.pid}
    rest, errors = up.communicate(timeout=GRACE_S)
    assert (up.returncode, rest) == (0, "")
    assert "\x1b" not in errors  # no terminal, no spinner


def test_a_start_that_fails_says_why_and_a_mesh_that_runs_keeps_its_log(
    offline_cli: Cli, tmp_path: Path, config: Path
) -> None:
    from infra.host.state import Claim

    claim = Claim(tmp_path / "state" / "choir")
    try:
        outcome = offline_cli("up", "--config", str(config))
    finally:
        claim.release()
    assert outcome.code == 1
    assert "a mesh is already running" in outcome.err
    assert not (tmp_path / "state" / "choir" / "up.log").exists()
    (tmp_path / "wrong.toml").write_text("[broker]\nprot = 4222\n")
    outcome = offline_cli("up", "--config", "wrong.toml")
    assert outcome.code == 1
    assert "broker.prot" in outcome.err and outcome.err.count("\n") == 1
    assert json.loads(offline_cli("down", "--json").out) == {"stopped": False}


def test_lines_are_as_grave_as_they_say() -> None:
    assert (read(ERROR).level, read(ERROR).said) == ("error", "no disk left=3")
    lines = GraveLines()
    assert lines.take("a", INFO) is None
    assert lines.take("a", "llama.cpp says this and that") is None
    assert lines.take("a", CHATTER) is None
    assert lines.take("a", ERROR) == "error: no disk left=3"
    assert lines.take("a", "  with more of it on the next line") == "  with more of it on the next line"
    assert lines.take("b", "  another instance's") is None
    assert lines.take("b", "Traceback (most recent call last):") is not None
    assert lines.take("b", "ValueError: so") == "ValueError: so"
    assert lines.take("b", INFO) is None
    assert lines.take("b", "ValueError: so") is None


def test_the_log_is_bounded_and_keeps_what_is_latest(tmp_path: Path) -> None:
    log = LogFile(tmp_path, most_bytes=1000)
    assert not list(tmp_path.iterdir())
    for number in range(200):
        log.write("agent-1", f"line {number}")
    log.close()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["up.log", "up.log.1", "up.log.2"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3000
    assert "line 199" in (tmp_path / "up.log").read_text()


@contextmanager
def a_screen(mode: Mode, folder: Path) -> Iterator[tuple[Screen, io.StringIO]]:
    written, log = io.StringIO(), LogFile(folder)
    try:
        yield Screen(mode, log, Console(file=written, width=120)), written
    finally:
        log.close()


def test_a_log_that_cannot_be_written_is_told_once_and_the_mesh_runs_on(tmp_path: Path) -> None:
    with a_screen("people", tmp_path / "not there") as (screen, written):
        for _ in range(3):
            screen.forward("agent-1", INFO)
    assert written.getvalue().count("the log cannot be written") == 1


def test_the_address_of_the_gateway_is_shown_with_a_line_to_try(tmp_path: Path) -> None:
    with a_screen("people", tmp_path) as (screen, written):
        screen.ready("nats://127.0.0.1:4222", 1.5, ["choir-qwen"], "http://127.0.0.1:11435")
        screen.ready("nats://127.0.0.1:4222", 1.5, ["choir-qwen"])
    told = written.getvalue()
    assert told.count("http    http://127.0.0.1:11435") == 1
    asked = '{"model": "choir-qwen", "prompt": "What is the capital of France?"}'
    assert told.count(f"curl http://127.0.0.1:11435/api/generate -d '{asked}'") == 1


def test_all_lines_are_shown_where_they_are_asked_for(tmp_path: Path) -> None:
    with a_screen("verbose", tmp_path) as (screen, written):
        screen.forward("agent-1", INFO)
    assert INFO in written.getvalue()


def test_what_the_process_itself_logs_goes_where_the_lines_of_services_go() -> None:
    import structlog

    from services.chassis.logs import get_logger

    said: list[tuple[str, str]] = []
    forward: Forward = lambda instance, line: said.append((instance, line))  # noqa: E731
    before = structlog.get_config()
    forward_own_log(forward)
    try:
        get_logger("here").warning("unreadable lease", key="agent.a")
        get_logger("here").debug("a detail")
    finally:
        structlog.configure(**before)
    ((instance, line),) = said
    assert instance == "supervisor"
    assert read(line).said == "unreadable lease key=agent.a" and read(line).grave

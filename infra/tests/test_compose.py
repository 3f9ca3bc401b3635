"""compose.yaml, really run: two projects on two networks form one mesh, and one of them goes away.

Needs a container engine and the image (`docker compose build demo`): `just test-compose` builds it and runs
these. They are skipped otherwise, since an engine and its images are not there on every machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ASKED_FOR = "CHOIR_TEST_COMPOSE"
DEADLINE_S = 240.0
COMMAND_DEADLINE_S = 180.0
BRIDGE = "docker0"
BOTH = {"choir-llama", "choir-qwen"}
STAGES = {"one-stage", "two-stage"}

pytestmark = pytest.mark.skipif(
    not os.environ.get(ASKED_FOR),
    reason="needs a container engine and the image that `just test-compose` builds",
)

NO_STORE = "[modelstore]\nenabled = false\n"


def compose_command() -> list[str]:
    """`docker compose`, or the older `docker-compose` where the engine has no such plug-in."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    alone = shutil.which("docker-compose")
    assert alone is not None, "there is neither `docker compose` nor docker-compose"
    return [alone]


class Project:
    """One host's compose project."""

    def __init__(self, name: str, settings: dict[str, str]) -> None:
        self.name = name
        self._command = [*compose_command(), "-p", name, "-f", str(REPOSITORY / "compose.yaml")]
        self._env = os.environ | settings

    def run(self, *words: str) -> str:
        """What the command wrote to stdout; AssertionError with its stderr if it failed."""
        done = subprocess.run(
            [*self._command, *words],
            env=self._env,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=COMMAND_DEADLINE_S,
        )
        assert done.returncode == 0, f"{self.name}: {' '.join(words)}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def choir(self, *words: str) -> Any:
        """The JSON that a `choir` command prints in the broker's container."""
        return json.loads(self.run("exec", "-T", "broker", "choir", *words, "--json"))

    def state(self, service: str, what: str) -> str:
        """What the engine says of a service's container."""
        container = self.run("ps", "-q", service).strip()
        shown = subprocess.run(
            ["docker", "inspect", "--format", what, container], capture_output=True, text=True, check=True
        )
        return shown.stdout.strip()

    def remove(self) -> None:
        """Its containers, network and volumes."""
        self.run("--profile", "mesh", "down", "--volumes", "--timeout", "60")


def bridge_address() -> str:
    """Where containers of every network reach ports that this host publishes."""
    addresses = json.loads(subprocess.check_output(["ip", "-json", "-4", "address", "show", BRIDGE]))
    address: str = addresses[0]["addr_info"][0]["local"]
    return address


def waited_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(1.0)
    return True


def part(folder: Path, name: str, model: str) -> dict[str, str]:
    """A host that serves one model, and offers another one to pipelines; each container has its invite."""
    agent, stage = folder / f"{name}-agent.toml", folder / f"{name}-stage.toml"
    agent.write_text(
        f'{NO_STORE}[[agents]]\nname = "{name}"\n'
        f'models = [{{ name = "{model}", path = "/models/{model}.gguf", slots = 4 }}]\n'
    )
    stage.write_text(
        f'{NO_STORE}[[stages]]\nname = "{name}-stage"\n'
        'models = [{ name = "phi", path = "/models/choir-phi.gguf", context_tokens = 1024 }]\n'
    )
    return {
        "CHOIR_AGENT_CONFIG": str(agent), "CHOIR_STAGE_CONFIG": str(stage), "CHOIR_HOSTNAME": name,
        "CHOIR_AGENT_INVITE": str(folder / f"{name}-agent.invite"),
        "CHOIR_STAGE_INVITE": str(folder / f"{name}-stage.invite"),
    }  # fmt: skip


def invite(host: Project, path: Path) -> None:
    """Has a line made for a container, and puts it where compose looks for it."""
    path.write_text(host.run("exec", "-T", "broker", "choir", "invite", "host", "--name", path.stem))
    path.chmod(0o644)  # the containers' user is none of this host's


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Project]]:
    """The host of the broker, and one that joins its mesh from another network."""
    folder = tmp_path_factory.mktemp("compose")
    folder.chmod(0o755)
    common = {"CHOIR_LISTEN": bridge_address(), "CHOIR_MEMORY": "2g"}
    parts = [part(folder, *host) for host in (("one", "choir-llama"), ("two", "choir-qwen"))]
    one, two = (Project(f"choirtest{own['CHOIR_HOSTNAME']}", common | own) for own in parts)
    for path in folder.glob("*.toml"):
        path.chmod(0o644)
    try:
        one.run("up", "-d", "broker")
        assert waited_for(lambda: _is_up(one)), "the broker's container does not come up"
        for own in parts:
            for kind in ("AGENT", "STAGE"):
                invite(one, Path(own[f"CHOIR_{kind}_INVITE"]))
        one.run("up", "-d", "broker", "agent", "stage")
        two.run("up", "-d", "--no-deps", "agent", "stage")
        assert waited_for(lambda: _models(one) >= BOTH), "the hosts did not find one another"
        assert waited_for(lambda: _stages(one) >= STAGES), "the stages did not join"
        yield one, two
    finally:
        two.remove()
        one.remove()


def _is_up(host: Project) -> bool:
    try:
        return bool(host.choir("status"))
    except (AssertionError, json.JSONDecodeError):  # it is still starting
        return False


def _models(host: Project) -> set[str]:
    try:
        return {model["name"] for model in host.choir("models")["models"]}
    except (AssertionError, json.JSONDecodeError):  # it is still starting
        return set()


def _stages(host: Project) -> set[str]:
    """The stages that can be given a part of `phi`."""
    try:
        nodes = host.choir("nodes")["nodes"]
    except (AssertionError, json.JSONDecodeError):  # it is still starting
        return set()
    return {node["instance"] for node in nodes if node["state"] == "ready" and node.get("stage")}


def _ensemble(host: Project) -> Any:
    return host.choir(
        "ask", "What is the capital of France?", "--models", "choir-llama,choir-qwen",
        "--strategy", "majority", "--timeout", "60",
    )  # fmt: skip


def test_an_ensemble_of_two_hosts_answers(hosts: tuple[Project, Project]) -> None:
    result = _ensemble(hosts[0])
    assert sorted(answer["instance"] for answer in result["answers"]) == ["one", "two"]
    assert result["text"]


def test_a_pipeline_runs_over_two_hosts(hosts: tuple[Project, Project]) -> None:
    one, _ = hosts
    placed = one.choir("shard", "phi", "--stages", "2", "--force")
    assert sorted(stage["instance"] for stage in placed["plan"]["stages"]) == ["one-stage", "two-stage"]
    result = one.choir("ask", "What is the capital of France?", "--model", "phi", "--timeout", "60")
    assert result["text"].strip()


@pytest.mark.parametrize("service", ["broker", "agent", "stage"])
def test_a_container_has_no_rights_and_writes_only_to_its_state(
    hosts: tuple[Project, Project], service: str
) -> None:
    one, _ = hosts
    assert one.run("exec", "-T", service, "id", "-u").strip() == "10001"
    assert "CapEff:\t0000000000000000" in one.run("exec", "-T", service, "cat", "/proc/self/status")
    with pytest.raises(AssertionError, match="Read-only file system"):
        one.run("exec", "-T", service, "touch", "/choir/written")
    assert "choir1-" not in one.state(service, "{{json .Config.Env}}")


def test_every_container_is_healthy(hosts: tuple[Project, Project]) -> None:
    one, two = hosts
    parts = [(one, "broker"), (one, "agent"), (one, "stage"), (two, "agent"), (two, "stage")]
    for host, service in parts:
        assert waited_for(lambda h=host, s=service: h.state(s, "{{.State.Health.Status}}") == "healthy")  # type: ignore[misc]


def test_each_request_has_one_outcome_when_a_host_stops_in_the_middle(hosts: tuple[Project, Project]) -> None:
    one, two = hosts
    with ThreadPoolExecutor(2) as asking:
        asked = [asking.submit(_outcome, one) for _ in range(12)]
        wait(asked, return_when=FIRST_COMPLETED)
        two.run("stop", "--timeout", "60", "agent", "stage")
        outcomes = [question.result() for question in asked]
    assert all(outcome in {"answered", "error"} for outcome in outcomes), outcomes
    assert "answered" in outcomes
    two.run("start", "agent", "stage")
    assert waited_for(lambda: _models(one) >= BOTH), "the host did not come back"
    assert sorted(answer["instance"] for answer in _ensemble(one)["answers"]) == ["one", "two"]


def _outcome(host: Project) -> str:
    """What became of one question: the command line exits with 1 and a typed error, or with 0 and a text."""
    try:
        return "answered" if _ensemble(host)["text"] else "nothing"
    except AssertionError as error:
        return "error" if '"code"' in str(error) else str(error)

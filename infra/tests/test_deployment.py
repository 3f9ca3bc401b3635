"""What runs elsewhere agrees with what runs here: compose.yaml, nats.conf, .ci/run, justfile."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.broker.broker import reserved_bytes, server_binary
from infra.settings import load_host_settings
from schemas import catalog

REPOSITORY = Path(__file__).resolve().parents[2]
NATS_CONF = REPOSITORY / "infra" / "nats.conf"


@pytest.fixture
def compose() -> dict[str, Any]:
    """compose.yaml as a tree."""
    yaml = pytest.importorskip("yaml")
    tree: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
    return tree


def test_the_containers_broker_has_a_valid_configuration() -> None:
    checked = subprocess.run([server_binary(), "--config", NATS_CONF, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_the_containers_broker_has_room_for_the_catalog_and_syncs_what_it_acknowledges() -> None:
    text = NATS_CONF.read_text()
    bound = {
        kind: int(number) * 10**9 for kind, number in re.findall(r"max_(file|memory)_store: (\d+)GB", text)
    }
    assert bound["file"] > reserved_bytes("file")
    assert bound["memory"] > reserved_bytes("memory")
    assert "sync_interval: always" in text
    assert catalog.MIB >= 10**6


def test_every_file_that_compose_mounts_or_builds_is_there(compose: dict[str, Any]) -> None:
    assert (REPOSITORY / compose["services"]["choir"]["build"]["dockerfile"]).is_file()
    mounted = [volume.split(":")[0] for volume in compose["services"]["nats"]["volumes"]]
    assert [name for name in mounted if name.startswith("./") and not (REPOSITORY / name).is_file()] == []
    assert [name for name in mounted if not name.startswith("./")] == list(compose["volumes"])


def test_the_environment_that_compose_sets_is_one_that_choir_reads(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in compose["services"]["choir"]["environment"].items():
        monkeypatch.setenv(name, value)
    (tmp_path / "choir.toml").touch()
    settings = load_host_settings(tmp_path / "choir.toml")
    assert not settings.broker.embedded
    assert settings.mesh.url == "nats://nats:4222"


def test_the_broker_is_open_to_this_host_only(compose: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in compose["services"]["nats"]["ports"])
    assert "ports" not in compose["services"]["choir"]


def test_the_checks_are_an_executable_shell_script_without_syntax_errors() -> None:
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], capture_output=True).returncode == 0


def test_just_and_the_checks_ask_for_the_same() -> None:
    just = (REPOSITORY / "justfile").read_text()
    recipe = just.split("\ncheck:\n")[1].split("\n\n")[0]
    commands = [line.strip().removeprefix("uv run ") for line in recipe.splitlines()]
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert len(commands) >= 5
    assert [command for command in commands if f"uv run --no-sync {command}\n" not in script] == []


def test_just_alone_lists_every_recipe_with_what_it_does() -> None:
    just = Path(sys.executable).with_name("just")
    found = os.environ | {"PATH": f"{just.parent}{os.pathsep}{os.environ['PATH']}"}  # it calls itself
    listed = subprocess.run([just], cwd=REPOSITORY, env=found, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    recipes = [line for line in listed.stdout.splitlines() if line.startswith("    ") and "[" not in line[:5]]
    assert recipes
    assert [line for line in recipes if "#" not in line] == []


@pytest.mark.parametrize("module", re.findall(r"python -m ([\w.]+)", (REPOSITORY / "justfile").read_text()))
def test_every_module_that_a_recipe_runs_is_there(module: str) -> None:
    path = REPOSITORY / module.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def test_the_containers_broker_leads_clients_to_the_same_doors_as_the_embedded_one() -> None:
    mapped = dict(re.findall(r'"(choir\.\S+)": "(choir\.door\.\S+)"', NATS_CONF.read_text()))
    assert mapped == catalog.door_mappings()

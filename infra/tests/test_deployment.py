"""What runs elsewhere agrees with what runs here: compose.yaml, the unit of systemd, .ci/run, justfile."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from infra.host.parts.instances import planned
from infra.members.enrolment import settings_of_member
from infra.settings import load_host_settings
from services.client.finding.membership import Membership

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def compose() -> dict[str, Any]:
    """compose.yaml as a tree."""
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    tree: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
    return tree


def parts_of(compose: dict[str, Any], what: str) -> list[str]:
    """Every entry of one kind over all services, with the defaults of its variables."""
    entries = [entry for service in compose["services"].values() for entry in service.get(what, ())]
    return [re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", entry) for entry in entries]


def test_every_file_that_compose_mounts_or_builds_is_there(compose: dict[str, Any]) -> None:
    assert {service["build"]["dockerfile"] for service in compose["services"].values()} == {
        "infra/deploy/Dockerfile"
    }
    mounted = [volume.split(":")[0] for volume in parts_of(compose, "volumes")]
    assert [name for name in mounted if name.startswith("./") and not (REPOSITORY / name).exists()] == []
    assert {name for name in mounted if not name.startswith("./")} == set(compose["volumes"])


def test_containers_have_no_rights_and_bounded_memory(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["mem_limit"] and service["pids_limit"]
        assert "environment" not in service or "CHOIR_MESH__PASSWORD" not in service["environment"]


def test_ports_are_open_to_this_host_only_unless_somebody_says_otherwise(compose: dict[str, Any]) -> None:
    assert parts_of(compose, "ports") == ["127.0.0.1:4222:4222"]
    assert compose["services"]["demo"]["network_mode"] == "host"  # it listens on loopback


@pytest.mark.parametrize("service", ["broker", "agent", "stage"])
def test_what_compose_sets_is_what_choir_reads(
    compose: dict[str, Any], service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = compose["services"][service]
    for name, value in said["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", value))
    settings = load_host_settings(REPOSITORY / "infra" / "deploy" / "compose" / f"{service}.toml")
    assert bool(settings.agents) is (service == "agent")
    assert bool(settings.stages) is (service == "stage")
    if service == "broker":
        assert (settings.broker.host, settings.broker.addresses) == ("0.0.0.0", ("broker", "127.0.0.1"))
        return
    # The others join by an invite of their own, and run what that lets them run
    (invite,) = said["secrets"]
    assert (said["environment"]["CHOIR_INVITE_FILE"], invite) == (
        f"/run/secrets/{invite}", f"{service}_invite"
    )  # fmt: skip
    runs = "agent" if service == "agent" else "shard_stage"
    member = Membership(kind="host", name="attic", url="tls://broker:4222", nkey="", services=(runs,))
    assert {one.service for one in planned(settings_of_member(settings, member), tmp_path)} == {runs}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (systemd)")
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    """The program and the user are put on a host by hand, so they are not here: the rest is checked."""
    unit = tmp_path / "choir.service"
    text = (REPOSITORY / "infra" / "deploy" / "systemd" / unit.name).read_text()
    unit.write_text(text.replace("/opt/choir/.venv/bin/choir", "/bin/true").replace("=choir\n", "=root\n"))
    added = tmp_path / "choir.service.d"
    shutil.copytree(REPOSITORY / "infra" / "deploy" / "systemd" / added.name, added)
    checked = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


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


def test_the_tests_that_take_long_are_run_by_the_checks_and_by_a_recipe_of_their_own() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    left_out = project["tool"]["pytest"]["ini_options"]["addopts"]
    assert left_out[-2:] == ["-m", "not soak"]
    script = (REPOSITORY / ".ci" / "run").read_text().splitlines()
    assert script[-2:] == ["uv run pytest", "uv run pytest -m soak"]
    assert "uv run pytest -m soak {{ OPTIONS }}" in (REPOSITORY / "justfile").read_text()


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


def test_what_is_installed_and_built_upon_has_bounds() -> None:
    """Nothing of a version that nobody here has seen: a range for each dependency, a whole version of the
    base image, and no image that is not built here."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    assert [one for one in needed if not re.search(r">=[\d.]+,<[\d.]+", one)] == []
    dockerfile = (REPOSITORY / "infra" / "deploy" / "Dockerfile").read_text()
    (base,) = re.findall(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)
    assert re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+-\S+", base)
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"${BASE}"}
    images = re.findall(r"^\s*image: (\S+)$", (REPOSITORY / "compose.yaml").read_text(), re.MULTILINE)
    assert images and all(image.startswith("choir:") for image in images)

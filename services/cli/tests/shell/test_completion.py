"""What the shell proposes when the tabulator is pressed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from nats.aio.client import Client

from infra.testing.choir_up import QUARTET, clean_environment
from infra.testing.plugin import SpawnService
from schemas.ensembles.strategies import STRATEGIES
from services.cli.shell.completion import last_of_list
from services.cli.tests.conftest import Cli
from services.cli.tests.pseudo_terminal import Terminal, on_terminal
from services.cli.tests.shell.test_imports import HEAVY, RUN

pytestmark = pytest.mark.long

AT_EXIT = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
"""
BASH = """
eval "$(choir completion bash)"
COMP_LINE="{words}" COMP_POINT={point}
_choir_completion choir
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


ZSH = "PS1='> '; autoload -Uz compinit; compinit -u -D; eval \"$(choir completion zsh)\"; print ready''now\n"
DEADLINE_S = 120.0
WITH_COLON = "llama3.2:3b"


def with_choir(environment: dict[str, str]) -> dict[str, str]:
    """The environment in which a shell finds this `choir`."""
    return {**environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def proposed(words: str, environment: dict[str, str]) -> list[str]:
    """What a real bash proposes for the last of these words."""
    outcome = subprocess.run(
        ["bash", "--norc", "-c", BASH.format(words=words, point=len(words))],
        env=with_choir(environment), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert outcome.stderr == ""
    return outcome.stdout.split()


@pytest.mark.soak
def test_bash_completes_commands_options_and_strategies_without_a_mesh(tmp_path: Path) -> None:
    nowhere = clean_environment(tmp_path, CHOIR_MESH__URL="nats://127.0.0.1:9")
    assert {"ask", "requests", "worker"} <= set(proposed("choir ", nowhere))
    assert proposed("choir fee", nowhere) == ["feedback"]
    assert proposed("choir ask --strat", nowhere) == ["--strategy"]
    assert proposed("choir ask Hi --strategy maj", nowhere) == ["majority"]
    assert proposed("choir ask Hi --strategy majority,dawid", nowhere) == ["majority,dawid_skene"]
    assert proposed("choir ask Hi --model choir-", nowhere) == []


def more_than(terminal: Terminal, text: str, count: int) -> bool:
    """Whether a text was written more often than so."""
    return terminal.text.count(text) > count


@pytest.fixture
def mesh_models() -> tuple[str, ...]:
    return (WITH_COLON,)


@pytest.mark.parametrize(
    "beginnings", [["llama3.2:"], pytest.param(["lla", "llama3.2:", "llama3.2:3"], marks=pytest.mark.soak)]
)
async def test_bash_completes_a_name_with_a_colon_from_every_letter_on(
    mesh_url: str,
    connection: Client,
    spawn_service: SpawnService,
    tmp_path: Path,
    beginnings: list[str],
) -> None:
    model = {"name": WITH_COLON, "reply": "Paris"}
    agent = {"name": "a", "backend": "instant", "models": [model]}
    for service in (spawn_service("router"), spawn_service("agent", agent=agent)):
        await service.wait_ready(connection)
    environment = clean_environment(tmp_path, CHOIR_MESH__URL=mesh_url)
    with on_terminal(["bash", "--norc", "-i"], with_choir(environment)) as terminal:
        terminal.type("PS1='> '; eval \"$(choir completion bash)\"; echo ready''now\n")
        terminal.wait_for("readynow")
        whole, seen = f"--model {WITH_COLON} ", 0
        for typed in beginnings:
            terminal.insist(f"\x15choir ask Hi --model {typed}\t", partial(more_than, terminal, whole, seen))
            seen = terminal.text.count(whole)


def test_bash_completes_the_models_of_the_running_mesh(
    live_mesh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.cli.shell import completion

    for name, value in clean_environment(tmp_path, CHOIR_MESH__URL=live_mesh).items():
        monkeypatch.setenv(name, value)
    # The limit is for people; here other tests keep the host busy.
    monkeypatch.setattr(completion, "MESH_LIMIT_S", 30.0)
    assert set(QUARTET) <= set(completion.model("choir-"))
    assert completion.models("choir-one,choir-tw") == ["choir-one,choir-two"]


@pytest.mark.soak
@pytest.mark.parametrize(
    "words",
    [
        "shard",
        "model load",
        "model unload",
        "model rm",
        "keys add --model",
        "batch --model",
        "eval --models",
    ],
)
def test_bash_completes_models_wherever_one_is_named(words: str, live_mesh: str, tmp_path: Path) -> None:
    environment = clean_environment(tmp_path, CHOIR_MESH__URL=live_mesh)
    end_s = time.monotonic() + DEADLINE_S
    while not (models := proposed(f"choir {words} choir-on", environment)):
        assert time.monotonic() < end_s  # a busy mesh is given up after a moment, and asked at the next key
    assert models == ["choir-one"]


def fish_proposes(words: str, environment: dict[str, str]) -> list[str]:
    """What a real fish proposes for the last of these words."""
    outcome = subprocess.run(
        ["fish", "--no-config", "-c", f'choir completion fish | source; complete -C "{words}"'],
        env=with_choir(environment), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line.partition("\t")[0] for line in outcome.stdout.splitlines()]


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_completes_commands_options_strategies_and_models(live_mesh: str, tmp_path: Path) -> None:
    environment = clean_environment(tmp_path, CHOIR_MESH__URL=live_mesh)
    assert fish_proposes("choir fee", environment) == ["feedback"]
    assert fish_proposes("choir ask --strat", environment) == ["--strategy"]
    assert fish_proposes("choir ask Hi --strategy majority,dawid", environment) == ["majority,dawid_skene"]
    end_s = time.monotonic() + DEADLINE_S
    while not (models := fish_proposes("choir ask Hi --model choir-", environment)):
        assert time.monotonic() < end_s  # a busy mesh is given up after a moment, and asked at the next key
    assert set(QUARTET) <= set(models)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        pytest.param("choir fee", "choir feedback ", marks=pytest.mark.soak),
        pytest.param("choir ask Hi --strat", "choir ask Hi --strategy ", marks=pytest.mark.soak),
        ("choir ask Hi --strategy majority,daw", "choir ask Hi --strategy majority,dawid_skene "),
        ("choir ask Hi --model choir-tw", "choir ask Hi --model choir-two "),
    ],
    ids=["command", "option", "strategy", "model"],
)
def test_zsh_completes(words: str, completed: str, live_mesh: str, tmp_path: Path) -> None:
    environment = clean_environment(tmp_path, CHOIR_MESH__URL=live_mesh)
    with on_terminal(["zsh", "-f", "-i"], with_choir(environment)) as terminal:
        terminal.type(ZSH)
        terminal.wait_for("readynow")
        terminal.insist(f"\x15{words}\t", lambda: completed in terminal.text)


def test_strategies_are_proposed_without_heavy_imports(tmp_path: Path) -> None:
    environment = {
        "_CHOIR_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": "choir ask -s ma",
    }
    outcome = subprocess.run(
        [sys.executable, "-c", AT_EXIT + RUN],
        env={**clean_environment(tmp_path), **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert outcome.stdout == "majority\n"
    assert not set(json.loads(outcome.stderr)).intersection((*HEAVY, "nats"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script_that_it_can_read(offline_cli: Cli, shell: str) -> None:
    script = offline_cli("completion", shell)
    assert script.code == 0
    assert "_CHOIR_COMPLETE=complete_" in script.out
    document = json.loads(offline_cli("completion", shell, "--json").out)
    assert document["script"].rstrip() == script.out.rstrip()
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n"], input=script.out, text=True, check=True)


def test_a_list_is_completed_at_its_end_and_names_nothing_twice() -> None:
    assert last_of_list("", STRATEGIES) == list(STRATEGIES)
    assert last_of_list("majority,", ("majority", "isp")) == ["majority,isp"]
    assert last_of_list("majority,nope", STRATEGIES) == []

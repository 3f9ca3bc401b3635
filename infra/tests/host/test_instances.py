"""The processes of a host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.host.parts.instances import planned, service_commands, with_threads
from infra.settings import load_host_settings
from schemas.errors import ConfigurationError
from services.agent.settings import AgentSection
from services.shard_stage.settings import StageSection

CONFIG = """
[health]
port = 9000

[[agents]]
name = "alice"
backend = "instant"
models = [{ name = "blue", reply = "blue" }]

[[agents]]
name = "bob"
backend = "instant"
replicas = 2
models = [{ name = "red", reply = "red" }]
"""


def test_each_process_is_told_who_it_is(tmp_path: Path) -> None:
    path = tmp_path / "choir.toml"
    path.write_text(CONFIG)
    commands = service_commands(load_host_settings(path), "nats://here:1", tmp_path)
    assert [command.service for command in commands] == [
        "aggregator",
        "summarizer",
        "metrics",
        "agent",
        "agent",
        "agent",
        "router",
    ]
    assert [command.instance for command in commands[3:6]] == ["alice", "bob-1", "bob-2"]
    assert [command.env["CHOIR_HEALTH__PORT"] for command in commands] == [
        "9000",
        "9001",
        "9002",
        "9003",
        "9004",
        "9005",
        "9006",
    ]
    assert all(command.env["CHOIR_MESH__URL"] == "nats://here:1" for command in commands)
    agent = json.loads(commands[3].env["CHOIR_AGENT"])
    assert (agent["name"], agent["models"][0]["reply"]) == ("alice", "blue")


def test_a_host_runs_a_gateway_and_a_model_store_unless_it_is_told_not_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "choir.toml"
    path.write_text(CONFIG)

    def services() -> set[str]:
        return {
            command.service
            for command in service_commands(load_host_settings(path), "nats://here:1", tmp_path)
        }

    monkeypatch.delenv("CHOIR_GATEWAY__ENABLED")
    monkeypatch.delenv("CHOIR_MODELSTORE__ENABLED")
    assert {"gateway", "modelstore"} <= services()
    path.write_text(CONFIG + "[gateway]\nenabled = false\n[modelstore]\nenabled = false\n")
    assert not {"gateway", "modelstore"} & services()


def test_hosts_of_one_name_do_not_hide_one_another(tmp_path: Path) -> None:
    path = tmp_path / "choir.toml"
    path.write_text(CONFIG)
    settings = load_host_settings(path)

    def names(state: str) -> set[str]:
        commands = service_commands(settings, "nats://here:1", tmp_path / state)
        return {command.instance for command in commands}

    assert names("one") & names("two") == {"alice", "bob-1", "bob-2"}
    assert names("one") == names("one")
    assert (tmp_path / "one" / "host-id").stat().st_mode & 0o777 == 0o600


SURROUNDINGS = {
    "PATH": "/bin",
    "LC_ALL": "C",
    "XDG_STATE_HOME": "/state",
    "CUDA_VISIBLE_DEVICES": "1",
    "https_proxy": "http://proxy",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "CHOIR_PASSWORD_ROUTER": "secret",
    "CHOIR_AGGREGATOR__SLOTS": "3",
    "CHOIR_MESH__PASSWORD": "secret",
    "LAB_KEY": "secret",
}


def test_a_process_has_of_its_surroundings_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SURROUNDINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CHOIR_MESH__USER", "choir")
    path = tmp_path / "choir.toml"
    path.write_text(f'{CONFIG}\n[workers.keys]\nLAB = {{ variable = "LAB_KEY", hosts = ["https://lab"] }}\n')
    commands = service_commands(load_host_settings(path), "nats://here:1", tmp_path)
    has = {command.service: SURROUNDINGS.keys() & command.env.keys() for command in commands}
    everybody = {"PATH", "LC_ALL", "XDG_STATE_HOME", "CUDA_VISIBLE_DEVICES", "CHOIR_MESH__PASSWORD"}
    assert has["router"] == has["metrics"] == everybody
    assert has["aggregator"] == everybody | {"CHOIR_AGGREGATOR__SLOTS"}
    assert has["agent"] == everybody | {"https_proxy", "LAB_KEY"}


def agent(name: str, threads: int | None = None, replicas: int = 1) -> AgentSection:
    """An agent that computes on this host."""
    model = {"name": "m", "path": "m.gguf"}
    return AgentSection.model_validate(
        {"name": name, "models": [model], "threads": threads, "replicas": replicas}
    )


def test_cores_are_shared_among_the_agents_that_compute() -> None:
    agents, _ = with_threads([agent("a"), agent("b", threads=3), agent("c", replicas=2)], (), cores=8)
    assert [a.threads for a in agents] == [2, 3, 2]
    agents, _ = with_threads([agent("a"), agent("b"), agent("c")], (), cores=2)
    assert [a.threads for a in agents] == [1, 1, 1]


def stage(name: str, replicas: int, standbys: int = 0, threads: int | None = None) -> StageSection:
    """Stages of a model on this host."""
    model = {"name": "m", "path": "m.gguf"}
    return StageSection.model_validate(
        {"name": name, "models": [model], "replicas": replicas, "standbys": standbys, "threads": threads}
    )


def threads_of(stages: list[StageSection], cores: int, agents: int = 0) -> dict[str, int | None]:
    _, placed = with_threads([agent(f"a{i}") for i in range(agents)], stages, cores)
    return {instance: section.threads for instance, section in placed}


def test_threads_of_stages_that_share_a_host_add_up_to_its_cores() -> None:
    assert threads_of([stage("s", 2)], cores=2) == {"s-1": 1, "s-2": 1}
    assert threads_of([stage("s", 3)], cores=8) == {"s-1": 3, "s-2": 3, "s-3": 2}
    assert threads_of([stage("s", 2), stage("t", 1)], cores=16) == {"s-1": 6, "s-2": 5, "t": 5}
    assert threads_of([stage("s", 2)], cores=7, agents=1) == {"s-1": 3, "s-2": 2}
    assert threads_of([stage("s", 1, threads=3)], cores=7) == {"s": 3}


def test_a_standby_is_like_the_stages_whose_place_it_takes() -> None:
    assert threads_of([stage("s", 2, standbys=1)], cores=2) == {"s-1": 1, "s-2": 1, "s-3": 1}
    assert threads_of([stage("s", 2, standbys=2)], cores=8) == {f"s-{n}": 4 for n in range(1, 5)}


def test_an_agent_that_loads_on_demand_knows_its_store_and_takes_work_of_what_it_may_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHOIR_MODELSTORE__ENABLED", "true")
    path = tmp_path / "choir.toml"
    for on_demand, models, takes_more in (
        ("{}", ("own",), True),
        ('{ models = ["large"] }', ("own", "large"), False),
    ):
        path.write_text(
            "[workers]\nenabled = false\n[[agents]]\nname = 'a'\n"
            f"models = [{{ name = 'own', path = 'own.gguf' }}]\non_demand = {on_demand}\n"
        )
        settings = load_host_settings(path)
        (agent,) = [one for one in planned(settings, tmp_path) if one.service == "agent"]
        (store,) = [one for one in planned(settings, tmp_path) if one.service == "modelstore"]
        assert (agent.models, agent.takes_workers) == (models, takes_more)
        assert json.loads(agent.own["CHOIR_AGENT"])["on_demand"]["store"] == store.name
        assert settings.models == models  # there are queues for these from the start
    monkeypatch.setenv("CHOIR_MODELSTORE__ENABLED", "false")
    with pytest.raises(ConfigurationError, match="on demand"):
        load_host_settings(path)

"""The whole choir.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.demo_models import checksums
from infra.settings import (
    DEMO_CONFIG,
    load_host_settings,
    model_path,
)
from infra.tests.config_text import settings_of
from schemas.errors import ConfigurationError

INSTANT = """
[[agents]]
name = "one"
backend = "instant"
models = [{ name = "m" }]
"""


pytestmark = pytest.mark.usefixtures("bare_environment")


def test_a_small_file_is_enough(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, INSTANT)
    assert settings.models == ("m",)
    assert settings.broker.embedded
    assert (settings.router.replicas, settings.aggregator.replicas) == (1, 1)
    assert settings.config == tmp_path / "choir.toml"


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHOIR_BROKER__PORT", "0")
    assert settings_of(tmp_path, "[broker]\nport = 5000\n").broker.port == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[brokers]\nport = 1\n", "brokers: there is no such key; did you mean broker?"),
        ("[broker]\nprot = 1\n", "broker.prot: there is no such key; did you mean port?"),
        ("[broker]\nport = -1\n", "broker.port: it must be at least 0"),
        ("[router]\nreplicas = 'many'\n", "router.replicas"),
        ("[[agents]]\nname = 'a'\nmodels = [{ slots = 1 }]\n", "agents.0.models.0.name"),
        ("[[tenants]]\nname = 'lab.7'\n", "tenants.0.name"),
        ("[[tenants]]\nname = 'choir'\n", "tenants.0.name: choir is a name of the mesh's own"),
        ("[[tenants]]\nname = 'a'\nrole = 'root'\n", "tenants.0.role"),
        ("[[tenants]]\nname = 'a'\npublic_keys = ['SU']\n", "tenants.0.public_keys.0"),
        ("[[tenants]]\nname = 'a'\nweight = 0\n", "tenants.0.weight"),
        ("[[tenants]]\nname = 'a'\nlimits = { batch_share = 2 }\n", "tenants.0.limits.batch_share"),
        ("[[tenants]]\nname = 'a'\n[[tenants]]\nname = 'a'\n", "two tenants are called a"),
        ("[[agents]]\nname = 'a'\nmodels = [{ name = 'm' }]\n", "model m of agent a needs a path"),
        (INSTANT + INSTANT, "two agents are called one"),
        ("[broker\n", "choir.toml: Expected"),
        ("[mesh]\nurl = 'nats://elsewhere:4222'\n", "set embedded = false"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        settings_of(tmp_path, text)
    assert said in refused.value.message


OPEN = "[broker]\nhost = '0.0.0.0'\n"


@pytest.mark.parametrize(
    ("mesh", "said"),
    [
        ("password = 'secret'", "set user in section [mesh] too"),
        ("user = 'choir'", "set password in section [mesh] too"),
        ("user = 'choir'\npassword = ''", "set password in section [mesh] too"),
        ("user = 'choir'\npassword = '  '", "set password in section [mesh] too"),
        ("user = ' '\npassword = 'secret'", "set user in section [mesh] too"),
    ],
)
def test_a_user_without_a_password_and_the_reverse_are_refused(tmp_path: Path, mesh: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        settings_of(tmp_path, f"{OPEN}[mesh]\n{mesh}\n")
    assert said in refused.value.message
    assert settings_of(tmp_path, f"{OPEN}[mesh]\nuser = 'choir'\npassword = 'secret'\n").mesh.user == "choir"


def test_an_empty_password_in_the_environment_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHOIR_MESH__USER", "choir")
    monkeypatch.setenv("CHOIR_MESH__PASSWORD", "")
    with pytest.raises(ConfigurationError, match="CHOIR_MESH__PASSWORD"):
        settings_of(tmp_path, OPEN)
    with pytest.raises(ConfigurationError, match="CHOIR_MESH__PASSWORD"):
        settings_of(tmp_path, INSTANT)
    monkeypatch.setenv("CHOIR_MESH__USER", "")
    assert settings_of(tmp_path, INSTANT).mesh.user is None


def test_joining_a_broker_elsewhere(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "[broker]\nembedded = false\n[mesh]\nurl = 'nats://elsewhere:4222'\n")
    assert settings.mesh.url == "nats://elsewhere:4222"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere"):
        load_host_settings(tmp_path / "nowhere.toml")


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path,
        "[broker]\nstore_dir = 'store'\n"
        "[[agents]]\nname = 'a'\n"
        "models = [{ name = 'm', path = 'models/m.gguf' }, { name = 'n', path = '/n.gguf' }]\n",
    )
    assert settings.store_dir(tmp_path / "state") == tmp_path / "store"
    assert [model.path for model in settings.agents[0].models] == [
        tmp_path / "models/m.gguf",
        Path("/n.gguf"),
    ]


def test_the_store_is_in_the_state_folder_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    assert settings_of(tmp_path, INSTANT).store_dir(tmp_path / "state") == tmp_path / "state" / "broker"


def test_an_unknown_demo_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no demo model choir-none"):
        model_path(Path("demo:choir-none"), tmp_path)


def test_demo_models_come_with_choir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shipped.gguf").touch()
    monkeypatch.setattr("infra.settings.DEMO_MODELS", tmp_path)
    assert model_path(Path("demo:shipped"), Path("/elsewhere")) == tmp_path / "shipped.gguf"


def test_the_demo_is_four_models_of_which_every_file_is_there() -> None:
    settings = load_host_settings()
    assert settings.config == DEMO_CONFIG
    assert settings.models == ("choir-llama", "choir-qwen", "choir-phi", "choir-gemma")
    models = [model for agent in settings.agents for model in agent.models]
    assert all(model.path is not None and model.path.is_file() for model in models)
    assert all(model.path is None or model.sha256 == checksums.sha256_of(model.path) for model in models)


def test_every_preset_of_the_demo_file_is_valid(tmp_path: Path) -> None:
    presets = DEMO_CONFIG.read_text().split("# --- presets")[1]
    settings = settings_of(tmp_path, uncommented(presets))
    assert [agent.name for agent in settings.agents] == ["llama-3b", "pair", "instant", "mac-07"]


def uncommented(presets: str) -> str:
    """The tables among the comments: from a line `# [[...` to the next line that is only `#` or blank."""
    lines, inside = [], False
    for line in presets.splitlines():
        inside = line.startswith("# [[") or (inside and line.startswith("# "))
        if inside:
            lines.append(line.removeprefix("# "))
    return "\n".join(lines)

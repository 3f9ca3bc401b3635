"""`choir up --shard MODEL=N`, `[[stages]]` and `[[pipelines]]`: what a host is to run for them."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from infra.demo_models import checksums
from infra.host.parts.instances import service_commands
from infra.host.parts.shards import ShardOption, with_shards
from infra.settings import DEMO_CONFIG, DEMO_MODELS, HostSettings, load_host_settings
from infra.tests.config_text import settings_of
from schemas.errors import ConfigurationError, InvalidRequest
from schemas.pipelines.plan import Shard

LLAMA = DEMO_MODELS / "choir-llama.gguf"
HOST = socket.gethostname()

CONFIG = """
[[stages]]
name = "attic"
threads = 4
models = [{ name = "large", path = "models/large.gguf", context_tokens = 2048 }]

[[pipelines]]
model = "large"
stages = 3
slots = 16
"""


pytestmark = pytest.mark.usefixtures("bare_environment")


def sharded(settings: HostSettings, *shards: str, standbys: int = 1) -> HostSettings:
    return with_shards(settings, map(ShardOption.parse, shards), standbys)


def test_a_file_names_what_this_host_offers_and_what_the_mesh_is_to_run(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, CONFIG)
    (stage,), (pipeline,) = settings.stages, settings.pipelines
    assert stage.models[0].path == tmp_path / "models" / "large.gguf"
    assert pipeline.spec == Shard(model="large", stages=3, slots=16)
    # Its queue is provided for as that of an agent's model.
    assert settings.models == ("large",)
    every = service_commands(settings, "nats://here:1", tmp_path)
    commands = [command for command in every if command.service == "shard_stage"]
    assert [command.instance for command in commands] == ["attic"]
    told = json.loads(commands[0].env["CHOIR_STAGE"])
    assert (told["threads"], told["models"][0]["context_tokens"]) == (4, 2048)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CONFIG + CONFIG.partition("[[pipelines]]")[0], "two stages are called attic"),
        (CONFIG + "[[pipelines]]\nmodel = 'large'\n", "two pipelines are of the model large"),
        ("[[pipelines]]\nmodel = 'm'\nstages = 99\n", "pipelines.0.stages"),
        ("[[pipelines]]\nmodel = 'm'\nstages = 2\nassign = ['a']\n", "1 nodes for 2 stages"),
        ("[[stages]]\nname = 'a'\nmodels = []\n", "stages.0.models"),
        ("[[pipelines]]\nmodel = 'm'\nnodes = 2\n", "pipelines.0.nodes: there is no such key"),
    ],
)
def test_what_is_wrong_with_stages_and_pipelines_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        settings_of(tmp_path, text)
    assert said in refused.value.message


def test_a_demo_model_runs_in_stages_and_no_longer_in_its_agent(tmp_path: Path) -> None:
    settings = sharded(load_host_settings(DEMO_CONFIG), "demo:choir-llama=2")
    assert "choir-llama" not in {model.name for agent in settings.agents for model in agent.models}
    assert len(settings.agents) == 3
    (stage,), (pipeline,) = settings.stages, settings.pipelines
    assert (stage.replicas, stage.standbys) == (2, 1)
    assert (stage.models[0].path, stage.models[0].name) == (LLAMA, "choir-llama")
    assert stage.models[0].sha256 == checksums.read(DEMO_MODELS)[LLAMA.name]
    # The number of stages was said in so many words; slots are those of the agent.
    assert (pipeline.stages, pipeline.force, pipeline.slots) == (2, True, 4)
    every = service_commands(settings, "nats://h:1", tmp_path)
    stages = [command.instance for command in every if command.service == "shard_stage"]
    assert stages == [f"{HOST}-choir-llama-{number}" for number in (1, 2, 3)]


def test_a_model_of_choir_toml_goes_by_its_name_and_keeps_its_settings(tmp_path: Path) -> None:
    text = f"""
    [[agents]]
    name = "pair"
    models = [
        {{ name = "one", path = "{LLAMA}", slots = 2, context_tokens = 64 }},
        {{ name = "two", path = "{LLAMA}" }},
    ]
    """
    settings = sharded(settings_of(tmp_path, text), "one=3", standbys=0)
    assert [model.name for model in settings.agents[0].models] == ["two"]
    assert (settings.pipelines[0].slots, settings.pipelines[0].context_tokens) == (2, 64)
    assert settings.stages[0].models[0].context_tokens == 64
    assert settings.stages[0].standbys == 0


def test_a_file_is_called_after_itself(tmp_path: Path) -> None:
    own = tmp_path / "my.gguf"
    own.write_bytes(LLAMA.read_bytes())
    settings = sharded(settings_of(tmp_path, ""), "my.gguf=2", "demo:choir-qwen=1")
    assert [pipeline.model for pipeline in settings.pipelines] == ["my", "choir-qwen"]
    assert settings.stages[0].models[0].path == own


@pytest.mark.parametrize(
    ("shard", "said"),
    [
        ("choir-llama", "is not MODEL=N"),
        ("choir-llama=0", "is not MODEL=N"),
        ("choir-llama=33", "from 1 to 32"),
        ("choir-llama=two", "is not MODEL=N"),
        ("=2", "is not MODEL=N"),
        ("gone.gguf=2", "neither a model of choir.toml"),
    ],
)
def test_a_shard_that_makes_no_sense_is_refused(tmp_path: Path, shard: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        sharded(settings_of(tmp_path, ""), shard)
    assert refused.value.field == "shard" and said in refused.value.message


def test_a_demo_model_that_there_is_not_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="demo:choir-llama"):
        sharded(settings_of(tmp_path, ""), "demo:choir-tuba=2")

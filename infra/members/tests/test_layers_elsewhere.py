"""A model in two stages on two hosts in networks of their own: the second host starts with nothing, takes the
layers of its stage from the first one's store, and the two answer together."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from infra.demo_models.bench_model import write_bench_model
from infra.members.tests.machines import DEADLINE_S, Machine
from services.engine.model.gguf.check import check_model_file, tensor_nbytes

LAYERS, WIDTH = 24, 640
ALLOWED = 1.05
MODEL = "large"
CONFIG = """
[summarizer]
replicas = 0
[metrics]
enabled = false
[gateway]
enabled = false
[modelstore]
enabled = {store}
min_free_bytes = 0
[[stages]]
name = "{name}"
threads = 1
cache = "slices"
models = [{{ name = "large", path = "{path}", context_tokens = 256 }}]
"""


def received_bytes(machine: Machine) -> int:
    """What has come over the cable of a machine, packets' headers and all."""
    path = "/sys/class/net/eth0/statistics/rx_bytes"
    said = subprocess.run(
        [*machine.network.inside, "cat", path], capture_output=True, text=True, check=True
    ).stdout
    return int(said)


@pytest.mark.soak
def test_an_empty_host_takes_its_layers_from_another_and_answers(
    machine: Callable[[str], Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = machine("one"), machine("two")
    path = write_bench_model(one.home / "large.gguf", layers=LAYERS, width=WIDTH, seed=4)
    header = check_model_file(path)
    (one.home / "choir.toml").write_text(CONFIG.format(name="first", path="large.gguf", store="true"))
    (two.home / "choir.toml").write_text(CONFIG.format(name="second", path=f"store:{MODEL}", store="false"))
    running = [one.starts("uv run choir up --listen 0.0.0.0")]
    try:
        one.types(f"uv run choir model add large.gguf --name {MODEL}")
        two.types(f"uv run choir join {one.types('uv run choir invite host')}")
        before = received_bytes(two)
        running.append(two.starts("uv run choir up"))
        offered = received_bytes(two)
        one.types(f"uv run choir shard {MODEL} --assign first,second --force")
        came = received_bytes(two) - before
        second = json.loads(one.types("uv run choir models --json"))["pipelines"][0]["stages"][1]
        said = one.types(f"uv run choir ask 'Tell me a story.' --model {MODEL} --max-tokens 8")
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(DEADLINE_S)
    layers = range(second["first_layer"], second["end_layer"])
    names = (*(f"blk.{layer}." for layer in layers), "output")
    own = header.data_offset + sum(
        tensor_nbytes(tensor) for tensor in header.tensors if tensor.name.startswith(names)
    )
    with capsys.disabled():
        sys.stdout.write(
            f"its layers: {own} bytes, over the wire: {came} ({came / own:.3f}), "
            f"of which {offered - before} before its stage was placed\n"
        )
    assert said
    assert own <= came <= ALLOWED * own

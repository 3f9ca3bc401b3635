"""Chains and a matrix on the demo models, as real as it gets: a mesh of its own, texts that models wrote."""

from __future__ import annotations

import csv
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from analysis.matrix.options import MatrixOptions
from analysis.matrix.session import measure
from infra.host.supervisor import Supervisor
from infra.settings import load_host_settings
from services.client.bulk.progress import PlainReporter
from services.client.client import Choir

pytestmark = pytest.mark.asyncio(loop_scope="module")

COUNTRIES = (("Kenya", "Africa", "Nairobi", "shilling"), ("France", "Europe", "Paris", "euro"),
             ("Japan", "Asia", "Tokyo", "yen"), ("Egypt", "Africa", "Cairo", "pound"))  # fmt: skip
DOCUMENT = "\n\n".join(
    f"{name} is a country in {continent}. Its capital is {capital}. People there pay with the {currency}."
    for name, continent, capital, currency in COUNTRIES
)
CONFIG = f"""
[broker]
port = 0
[aggregator]
replicas = 0
[metrics]
enabled = false
[[agents]]
name = "both"
threads = 1
models = [
  {{ name = "choir-llama", path = "demo:choir-llama", slots = 4 }},
  {{ name = "choir-gemma", path = "demo:choir-gemma", slots = 4 }},
  {{ name = "narrow", path = "demo:choir-llama", slots = 4, context_tokens = 64 }},
]
[[agents]]
name = "documents"
backend = "instant"
models = [{{ name = "document", reply = '''{DOCUMENT}''' }}]
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A mesh of two demo models, one of them again with a context of 64 tokens, and a source of documents."""
    folder = tmp_path_factory.mktemp("mesh")
    (folder / "choir.toml").write_text(CONFIG)
    settings = load_host_settings(folder / "choir.toml")
    supervisor = Supervisor(settings, state=folder / "state", forward=lambda *_: None)
    await supervisor.start()
    yield supervisor.url
    await supervisor.stop()


async def test_one_model_tells_and_the_others_shorten(url: str) -> None:
    async with Choir(url) as mesh:
        result = await mesh.ask(
            "Tell me about Kenya.", model="choir-llama", summarize_with=["choir-gemma", "choir-gemma"]
        )
    told, shortened, _ = (answer.text for answer in result.answers)
    assert told == DOCUMENT.split("\n\n")[0]
    assert shortened == "Kenya is a country in Africa with the capital Nairobi."
    assert len(result.steps) == 3
    for step in result.steps:
        assert step.generated_tokens > 0 and step.prompt_tokens > 0
        assert step.timings.eval_duration_ns > 0 and (step.tokens_per_s or 0) > 0
        assert step.ping_ns is not None and step.round_trip_ns is not None
        assert step.round_trip_ns > step.timings.eval_duration_ns


async def test_a_document_longer_than_the_context_is_shortened_part_by_part(url: str) -> None:
    async with Choir(url) as mesh:
        result = await mesh.ask(
            "the document", model="document", summarize_with=["narrow"], max_tokens=500, timeout_s=60
        )
    assert result.answers[0].text == DOCUMENT
    parts = result.steps[1].parts
    assert [part.text for part in parts[: len(COUNTRIES)]] == [
        f"{name} is a country in {continent} with the capital {capital}."
        for name, continent, capital, _ in COUNTRIES
    ]
    assert all(part.prompt_tokens < 64 for part in parts)
    assert result.text


async def test_a_matrix_of_two_by_two_is_measured_and_drawn(url: str, tmp_path: Path) -> None:
    models = ("choir-llama", "choir-gemma")
    options = MatrixOptions(
        generators=models, summarizers=models, prompts=("Tell me about Kenya.",), repetitions=2
    )
    with (tmp_path / "progress").open("w") as progress:
        report = await measure(options, tmp_path, 1, PlainReporter(progress), url=url)
    assert [(pair.generator, pair.summarizer) for pair in report.pairs] == [
        (generator, summarizer) for generator in models for summarizer in models
    ]
    for pair in report.pairs:
        assert (pair.cells, pair.failed) == (2, 0)
        assert pair.total_time_s is not None and 0 <= pair.total_time_s < 60
        assert (pair.tokens_per_s or 0) > 0 and (pair.network_latency_ms or 0) > 0
    with (tmp_path / "matrix.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert all(int(row["summarizer_eval_duration_ns"]) > 0 for row in rows)
    for chart in report.charts:
        width, height = size_of_png(tmp_path / chart)
        assert width > 500 and height > 200


def size_of_png(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the header."""
    header = path.read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", header[16:24])
    return width, height

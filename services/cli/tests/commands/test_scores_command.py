"""`choir scores` and strategies with further rounds, against a live mesh."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from infra.testing.choir_up import QUARTET
from services.cli.tests.conftest import Cli
from services.client.client import Choir

ALL_FOUR = ",".join(QUARTET)


def test_what_was_learnt_is_shown_kept_and_forgotten(cli: Cli, live_mesh: str, tmp_path: Path) -> None:
    async def teach() -> None:
        async with Choir(live_mesh) as mesh:
            result = await mesh.ask(
                "Capital of France?", models=QUARTET, choices=("Lyon", "Paris"), topic="capitals"
            )
            await mesh.feedback(result.request_id, "Paris")

    cli("scores", "--reset")
    asyncio.run(teach())
    shown = cli("scores")
    assert shown.code == 0
    for row in (
        ["choir-one", "(all)", "1", "1", "100", "%"],
        ["choir-three", "capitals", "0", "1", "0", "%"],
    ):
        assert row in [line.split() for line in shown.out.splitlines()]

    file = tmp_path / "scores.json"
    reset = json.loads(cli("scores", "--export", str(file), "--reset", "--json").out)
    kept = json.loads(file.read_text())
    assert reset["reset"] and not kept["reset"]
    assert {score["agent"] for score in kept["accuracy"]} == set(QUARTET)
    assert len(kept["agreement"]) == 6
    assert cli("scores").out.startswith("nothing has been learnt yet")


def test_nothing_is_forgotten_if_the_file_cannot_be_written(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("scores", "--export", str(tmp_path / "no" / "where.json"), "--reset")
    assert outcome.code == 2
    assert "export" in outcome.err and "forgotten" not in outcome.out


def test_many_strategies_stand_side_by_side_with_what_they_did_without(cli: Cli) -> None:
    names = "majority,isp,topic,debate,best_single,concat"
    outcome = cli(
        "ask", "Capital of France?", "--models", ALL_FOUR, "--strategy", names, "--topic", "capitals"
    )
    assert outcome.code == 0
    for part in ("majority", "isp", "topic", "debate", "answers again", "best_single: nobody knows yet"):
        assert part in outcome.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--strategy", "majority,dice"),
            "strategies.1: there is no strategy 'dice'; known: majority, weighted",
        ),
        (("--strategy", "average"), "strategies.0: average decides closed questions only"),
        (("--strategy", "majority", "--samples", "3"), "samples: only auto, best_single, synthesize_samples"),
        (("--strategy", "best_single", "--samples", "0"), "--samples"),
        (("--topic", "x" * 65), "topic: it may have 64 characters at most"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_its_name(
    cli: Cli, options: tuple[str, ...], said: str
) -> None:
    outcome = cli("ask", "Why?", "--models", ALL_FOUR, *options)
    assert outcome.code in (1, 2)
    assert said in outcome.err

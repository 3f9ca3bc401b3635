"""`choir ask --choices`: an answer that nobody can read is a failure, and the README's example is none."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from infra.settings import DEMO_CONFIG
from infra.testing.choir_up import QUARTET, choir_command, up
from services.cli.tests.conftest import Cli

METALS = ("ask", "Which is a metal?", "--choices", "gold,oxygen", "--models", ",".join(QUARTET))
README = Path(__file__).resolve().parents[4] / "README.md"


def test_a_question_that_nobody_answered_readably_has_failed(cli: Cli) -> None:
    outcome = cli(*METALS, "--strategy", "majority,weighted")
    assert outcome.code == 1
    assert "choir-three" in outcome.out and "Lyon" in outcome.out, "what they said is still shown"
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("choir: answers_unreadable: none of the 4 answers ")
    assert "gold, oxygen" in outcome.err
    assert "--kind text" in outcome.err


def test_json_says_so_too_in_one_document(cli: Cli) -> None:
    outcome = cli(*METALS, "--json")
    result = json.loads(outcome.out)
    assert (outcome.code, outcome.err) == (1, "")
    assert result["error"]["code"] == "answers_unreadable"
    assert len(result["answers"]) == len(QUARTET)


def test_one_strategy_that_decides_is_enough(cli: Cli) -> None:
    outcome = cli(*METALS, "--strategy", "majority,concat")
    assert (outcome.code, outcome.err) == (0, "")


def test_an_ensemble_that_is_not_sure_enough_shows_what_all_said_and_has_failed(cli: Cli) -> None:
    doubtful = ("ask", "Which city?", "--choices", "London,Lyon", "--min-confidence", "1")
    outcome = cli(*doubtful, "--models", ",".join(QUARTET))
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert outcome.err.startswith("choir: undecided: min_confidence: majority holds its answer right with ")
    assert "choir-three" in outcome.out and "(undecided: " in outcome.out
    document = json.loads((told := cli(*doubtful, "--models", ",".join(QUARTET), "--json")).out)
    assert (told.code, document["error"]["code"], len(document["answers"])) == (1, "undecided", len(QUARTET))
    assert "text" not in document and document["decisions"][0]["confidence"] < 1


@pytest.mark.parametrize("choices", ["gold", "gold,gold", "gold,,oxygen"])
def test_choices_that_leave_no_choice_are_refused_before_anything_is_sent(
    offline_cli: Cli, choices: str
) -> None:
    outcome = offline_cli("ask", "Which is a metal?", "--choices", choices)
    assert outcome.code == 2
    assert outcome.err.startswith("choir: invalid_request: choices")
    assert outcome.err.count("\n") == 1


@pytest.mark.soak
def test_the_closed_question_of_the_readme_is_answered_by_the_demo_models(tmp_path: Path) -> None:
    # Given the mesh that a newcomer starts
    examples = re.findall(r"^uv run choir (ask .*--choices .*)$", README.read_text(), re.MULTILINE)
    (config := tmp_path / "choir.toml").write_text(
        re.sub(r"^port = \d+", "port = 0", DEMO_CONFIG.read_text(), flags=re.MULTILINE)
    )
    with up(tmp_path, config) as url:
        for example in examples:
            # When the README's question is asked as it stands there
            asked = subprocess.run(
                choir_command(*shlex.split(example, comments=True)),
                env={**os.environ, "CHOIR_MESH__URL": url},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            # Then most of the models name an option
            assert asked.returncode == 0, asked.stdout + asked.stderr
            assert asked.stdout.count("abstains") == 0, asked.stdout
    assert examples

"""`choir ensembles list | add | rm` against a live mesh, and what can be asked then."""

from __future__ import annotations

import json

from services.cli.tests.conftest import Cli


def test_an_ensemble_is_made_asked_as_a_model_and_forgotten(cli: Cli) -> None:
    members = ("--member", "choir-one", "--member", "choir-two")
    made = cli("ensembles", "add", "pair", *members, "--strategy", "majority", "--quorum", "1")
    assert made.out == "pair can be asked as a model\n", made.err
    try:
        (entry,) = json.loads(cli("ensembles", "list", "--json").out)["ensembles"]
        assert (entry["words"][0]["ensemble"]["members"], entry["words"][0]["operators"]) == (
            ["choir-one", "choir-two"],
            True,
        )
        row = next(line for line in cli("ensembles", "list").out.splitlines() if line.startswith("pair"))
        assert row.split() == ["pair", "choir-one,", "choir-two", "majority", "1", "operators", "yes"]
        assert any(line.startswith("pair") for line in cli("models").out.splitlines())
        assert [one["name"] for one in json.loads(cli("models", "--json").out)["ensembles"]] == ["pair"]
        answer = json.loads(cli("ask", "Capital of France?", "--model", "pair", "--json").out)
        assert answer["topology"] == "ensemble"
    finally:
        gone = cli("ensembles", "rm", "pair")
    assert gone.out == "pair is forgotten\n"
    assert cli("ensembles", "list").out.startswith("no ensembles; `[[ensembles]]` in choir.toml")


def test_what_cannot_be_is_refused_by_the_field_with_the_way_out(cli: Cli) -> None:
    missing = cli("ensembles", "rm", "nobody")
    assert missing.code == 2 and "there is no ensemble 'nobody'; there are: none" in missing.err
    wrong = cli("ensembles", "add", "pair", "--strategy", "guess")
    assert wrong.code == 2 and "there is no strategy guess" in wrong.err
    itself = cli("ensembles", "add", "pair", "--member", "pair")
    assert itself.code == 2 and "it cannot be a member of itself" in itself.err

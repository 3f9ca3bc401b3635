"""`choir keys` against a live mesh: keys are made, listed, changed, and ended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.requests.keys import ApiKey, digest_of
from services.cli.tests.conftest import Cli
from services.cli.views.tables.keys_view import limits_of


def _made(cli: Cli, *options: str) -> dict[str, Any]:
    outcome = cli("keys", "add", "--json", *options)
    assert outcome.code == 0, outcome.err
    made: dict[str, Any] = json.loads(outcome.out)
    return made


def _listed(cli: Cli) -> dict[str, dict[str, Any]]:
    outcome = cli("keys", "list", "--json")
    assert outcome.code == 0, outcome.err
    return {key["id"]: key for key in json.loads(outcome.out)["keys"]}


def test_a_key_is_made_and_its_secret_is_kept_nowhere(cli: Cli) -> None:
    made = _made(
        cli, "--label", "Open WebUI", "--scope", "generate", "--model", "choir-one", "--expires", "90d"
    )
    key = _listed(cli)[made["key"]["id"]]
    assert key["digest"] == digest_of(made["secret"])
    assert made["secret"] not in cli("keys", "list", "--json").out
    assert (key["scopes"], key["models"], key["tenant"]) == (["generate"], ["choir-one"], "local")
    assert key["expires_at_s"] - key["created_at_s"] == pytest.approx(90 * 86_400)
    table = cli("keys", "list").out
    assert f"Open WebUI (...{made['secret'][-4:]})" in table and "good for 90 d" in table


def test_people_get_the_secret_alone_on_standard_output(cli: Cli) -> None:
    outcome = cli("keys", "add")
    assert outcome.out.startswith("choir-k-") and len(outcome.out.split()) == 1
    assert "shown this once" in outcome.err


def test_what_a_key_opens_is_changed_and_ended(cli: Cli) -> None:
    limits = ("--tokens-per-minute", "600", "--requests-per-minute", "120", "--batch-share", "0.01")
    key_id = _made(cli, *limits, "--priority", "batch")["key"]["id"]
    made = _listed(cli)[key_id]
    assert made["limits"] == {"tokens_per_minute": 600, "requests_per_minute": 120, "batch_share": 0.01}
    assert made["priority"] == "batch"
    told = limits_of(ApiKey.model_validate(made))
    assert told == ["120 requests/min", "600 tokens/min", "0.01 of the queue", "all is batch work"]
    table = cli("keys", "list").out
    assert all(limit in table for limit in told)
    assert cli("keys", "change", key_id, "--priority", "interactive").code == 0
    assert "priority" not in _listed(cli)[key_id], "it is as keys usually are"
    assert cli("keys", "change", key_id, "--in-flight", "4", "--no-cache", "--model", "choir-one").code == 0
    changed = _listed(cli)[key_id]
    assert changed["limits"] == {"requests_in_flight": 4}
    assert (changed["cache"], changed["models"]) == (False, ["choir-one"])
    assert cli("keys", "change", key_id, "--all-models").code == 0
    assert _listed(cli)[key_id]["models"] == []
    assert "revoked" in cli("keys", "revoke", key_id).out
    assert _listed(cli)[key_id]["revoked"] is True
    assert cli("keys", "remove", key_id).code == 0
    assert key_id not in _listed(cli)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("add", "--scope", "everything"), "scopes.0"),
        (("add", "--expires", "soon"), "expires: 'soon' is no length of time"),
        (("add", "--in-flight", "0"), "requests_in_flight"),
        (("add", "--requests-per-minute", "0"), "requests_per_minute"),
        (("add", "--batch-share", "2"), "batch_share"),
        (("add", "--priority", "urgent"), "priority"),
        (("revoke", "k-nobody"), "there is no key 'k-nobody'"),
        (("revoke", "K nobody"), "id:"),
    ],
)
def test_what_is_wrong_is_named(cli: Cli, arguments: tuple[str, ...], told: str) -> None:
    outcome = cli("keys", *arguments)
    assert outcome.code == 2, outcome.out
    assert told in outcome.err

"""`choir nodes cordon | drain | uncordon` against a live mesh."""

from __future__ import annotations

import json
import time

from services.cli.tests.conftest import Cli

DEADLINE_S = 180.0


def wait_for(cli: Cli, instance: str, words: str) -> None:
    """Returns when the line of an instance says so."""
    end_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < end_s:
        if any(instance in line and words in line for line in cli("nodes").out.splitlines()):
            return
        time.sleep(0.1)
    raise AssertionError(cli("nodes").out)


def test_an_agent_is_drained_when_its_work_is_done_and_let_in_again(cli: Cli) -> None:
    wait_for(cli, "sleeper", " 0/")  # tests before this one may have left it something
    request = cli("ask", "hi", "--model", "choir-slow", "--submit").out.strip()
    wait_for(cli, "sleeper", " 1/")
    try:
        busy = cli("nodes", "drain", "sleeper", "--instance", "--wait", "0.3s")
        assert busy.code != 0 and "not drained after 0.3 s (sleeper: 1 in work)" in busy.err
        wait_for(cli, "sleeper", "draining")
        refused = cli("ask", "hi", "--model", "choir-slow")
        assert "`choir nodes uncordon --instance sleeper`" in refused.err
        cli("cancel", request)
        done = cli("nodes", "drain", "sleeper", "--instance").out
        assert done == "sleeper is drained: it may be stopped\n"
        wait_for(cli, "sleeper", "drained")
    finally:
        back = cli("nodes", "uncordon", "sleeper", "--instance", "--json")
    assert json.loads(back.out)["cordons"] == [], back.err
    wait_for(cli, "sleeper", "ready")


def test_a_host_that_is_not_there_is_refused_with_those_that_are(cli: Cli) -> None:
    refused = cli("nodes", "cordon", "attic")
    assert refused.code == 2
    assert "no agent or stage service runs on 'attic'; hosts: " in refused.err
    assert "attic is not cordoned; cordoned: none" in cli("nodes", "uncordon", "attic").err

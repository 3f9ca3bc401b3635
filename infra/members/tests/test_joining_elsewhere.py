"""Joining from other networks, by the README's own words: a host that serves, and a person who asks."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from infra.members.tests.machines import DEADLINE_S, REPOSITORY, Machine
from schemas.replies import NodesReply
from services.cli.views.tables.members_view import HostsDocument

README = REPOSITORY / "README.md"
HEADING = "## More hosts, and other people"
KEY = ".config/choir/client.nk"
OVERLAP_S = 60


def commands_of_readme() -> list[str]:
    """What the section about other hosts tells to type, in its order."""
    section = README.read_text().partition(HEADING)[2].partition("\n## ")[0]
    blocks = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def agents(machine: Machine) -> set[str]:
    """The agents of the mesh, as it is seen there."""
    nodes = NodesReply.read(machine.types("uv run choir nodes --json").encode()).nodes
    return {lease.instance for lease in nodes if lease.service == "agent"}


def rotates(one: Machine, alice: Machine, join: str, ask: str) -> None:
    """Her new key comes while she asks without a pause. What still has the old one goes on for as long as was
    promised, and not for longer."""
    elsewhere, over = alice.also("alice-elsewhere"), threading.Event()

    def asks() -> int:
        asked = 0
        while not over.is_set():
            assert not (why := alice.refused(ask)), why
            asked += 1
        return asked

    with ThreadPoolExecutor(1) as beside:
        asking = beside.submit(asks)
        try:
            line = one.types(f"uv run choir tenants rotate alice --overlap {OVERLAP_S // 60}m")
            before = (alice.home / KEY).read_bytes()
            began_s = time.monotonic()
            alice.types(join.replace("LINE", line))
            came_s = time.monotonic()
            assert (alice.home / KEY).read_bytes() != before == (elsewhere.home / KEY).read_bytes()
            good = 0
            while not (why := elsewhere.refused(ask)):
                good += 1
                assert time.monotonic() < came_s + OVERLAP_S + DEADLINE_S
            refused_s = time.monotonic()
        finally:
            over.set()
        asked = asking.result(DEADLINE_S)
    assert asked and good
    assert "does not let" in why and refused_s > began_s + OVERLAP_S
    alice.tell(f"until the old key is refused, which was good for {OVERLAP_S} s", refused_s - came_s)
    alice.tell(f"of {asked} requests meanwhile none has failed", refused_s - began_s)


def revokes_host(one: Machine, two: Machine, up: subprocess.Popen[bytes], again: str) -> None:
    """The host is cut off: what runs there ends, and it is not let in again."""
    listed = HostsDocument.model_validate_json(one.types("uv run choir hosts list --json"))
    (name,) = [host.name for host in listed.hosts]
    began_s = time.monotonic()
    assert one.types(f"uv run choir hosts revoke {name}") == f"the host {name} is let in no more"
    said_s = time.monotonic()
    while "it was revoked" not in two.said:
        assert time.monotonic() < began_s + DEADLINE_S, two.said
        time.sleep(0.05)
    two.tell("from choir hosts revoke, typed, until the host is cut off", time.monotonic() - began_s)
    two.tell("from its word until then", time.monotonic() - said_s)
    up.wait(DEADLINE_S)
    assert "lets nobody in" in two.refused(again)


def test_the_readme_says_six_commands() -> None:
    first, host, person, join, up, ask = commands_of_readme()
    assert [first.split()[3], host.split()[4], person.split()[4]] == ["up", "host", "person"]
    assert join == "uv run choir join LINE" and up == "uv run choir up" and ask.split()[3] == "ask"


@pytest.mark.soak
def test_a_host_and_a_person_join_from_other_networks_word_for_word(
    machine: Callable[[str], Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    first, invite_host, invite_person, join, up, ask = commands_of_readme()
    one, two, alice = machine("one"), machine("two"), machine("alice")
    running = [one.starts(first)]
    try:
        # A host joins, and its models are models of the mesh
        two.types(join.replace("LINE", one.types(invite_host)))
        before = agents(one)
        running.append(two.starts(up))
        came = agents(one) - before
        assert len(came) == 4, came
        # A person joins, and asks
        alice.types(join.replace("LINE", one.types(invite_person)))
        assert "Paris" in alice.types(ask)
        # And the second host answers some of it
        served = 'uv run choir sql --json "SELECT DISTINCT instance FROM task_completed"'
        for _ in range(20):
            if any(name in one.types(served) for name in came):
                break
            alice.types(f"{ask} --model choir-llama")
        assert any(name in one.types(served) for name in came)
        # What the section says besides: a limit, a new key, and an end
        assert "2" in one.types("uv run choir tenants limit alice --in-flight 2")
        rotates(one, alice, join, ask)
        revokes_host(one, two, running[1], up)
        began_s = time.monotonic()
        while agents(one) != before:
            assert time.monotonic() < began_s + DEADLINE_S
        assert "Paris" in alice.types(ask)
        one.types("uv run choir tenants revoke alice")
        assert "does not let" in alice.refused(ask)
        assert alice.types("uv run choir join --leave") == "left"
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(DEADLINE_S)
    with capsys.disabled():
        for name, one_of in (("first host", one), ("second host", two), ("alice", alice)):
            for command, seconds in one_of.took:
                sys.stdout.write(f"{name:12} {seconds:6.1f} s  {command}\n")

"""Joining from other networks, by the README's own words: a host that serves, and a person who asks."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pytest

from infra.members.tests.machines import DEADLINE_S, REPOSITORY, Machine
from schemas.replies import NodesReply

README = REPOSITORY / "README.md"
HEADING = "## More hosts, and other people"


def commands_of_readme() -> list[str]:
    """What the section about other hosts tells to type, in its order."""
    section = README.read_text().partition(HEADING)[2].partition("\n## ")[0]
    blocks = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def agents(machine: Machine) -> set[str]:
    """The agents of the mesh, as it is seen there."""
    nodes = NodesReply.read(machine.types("uv run choir nodes --json").encode()).nodes
    return {lease.instance for lease in nodes if lease.service == "agent"}


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
        # What the section says besides: a limit, an end, and leaving
        assert "2" in one.types("uv run choir tenants limit alice --in-flight 2")
        one.types("uv run choir tenants revoke alice")
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

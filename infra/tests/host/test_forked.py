"""A supervisor's services are forked, and go on when what forks them is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio

from infra.host.children.child import Running, ServiceCommand
from infra.host.children.fork_server import FORKS
from infra.host.children.forked import ForkServer
from infra.host.children.processes import until

pytestmark = [
    pytest.mark.skipif(not FORKS, reason="needs Linux: pidfd_open(2)"),
    pytest.mark.asyncio(loop_scope="module"),
]

DEADLINE_S = 180.0
MODULE = "infra.testing.switched_off"
"""A module that does nothing: it ends at once."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server() -> AsyncIterator[ForkServer]:
    """A fork server, as a supervisor has it."""
    running = ForkServer(lambda line: said.append(line))
    yield running
    await running.close()


said: list[str] = []


def command(module: str, *options: str, **env: str) -> ServiceCommand:
    environment = {"PATH": os.environ["PATH"], **env}
    return ServiceCommand("router", "router-1", [sys.executable, *options, "-P", "-m", module], environment)


async def ended(process: Running) -> tuple[int, str]:
    """Its exit code and all that it wrote, when it has ended."""
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        code = await process.wait()
        return code, (await process.stdout.read()).decode()


async def test_a_service_that_ends_says_why_and_with_which_code(server: ForkServer) -> None:
    process = await server.start(command("services.agent", CHOIR_AGENT="nonsense"))
    code, output = await ended(process)
    assert code == process.returncode == 2
    assert "agent" in output and "Warning" not in output
    process.send_signal(signal.SIGKILL)


async def test_it_is_called_what_it_is_and_sees_its_environment_alone(server: ForkServer) -> None:
    process = await server.start(command("services.router", CHOIR_MESH__URL="nats://127.0.0.1:9"))
    here = psutil.Process(process.pid)
    assert await until(lambda: " ".join(here.cmdline()).strip().endswith("-m services.router"), DEADLINE_S)
    process.send_signal(signal.SIGKILL)
    assert (await ended(process))[0] == -signal.SIGKILL


async def test_when_the_server_is_killed_its_services_end_and_the_next_one_has_a_new_server(
    server: ForkServer,
) -> None:
    first = await server.start(command("services.router", CHOIR_MESH__URL="nats://127.0.0.1:9"))
    parent = psutil.Process(first.pid).parent()
    assert parent is not None
    parent.kill()
    assert (await ended(first))[0] == -signal.SIGTERM
    second = await server.start(command("services.router", CHOIR_MESH__URL="nats://127.0.0.1:9"))
    assert psutil.Process(second.pid).parent() != parent
    second.send_signal(signal.SIGKILL)
    await ended(second)


async def test_what_cannot_be_forked_is_started_as_a_program(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for options, forks in ((("-X", "dev"), True), ((), False)):
        monkeypatch.setattr("infra.host.children.forked.FORKS", forks)
        process = await server.start(command(MODULE, *options))
        assert await ended(process) == (0, "")
    assert said == []

"""Every command that talks to a mesh, under every role, on a broker with accounts and with real services."""

from __future__ import annotations

import asyncio
import contextlib
import io
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.broker.access.accounts import ServiceUser, accounts
from infra.broker.access.keys import KeyRing
from infra.broker.access.permissions import OPERATOR, Scope
from infra.broker.broker import Broker
from infra.broker.provision import provision
from infra.host.operator_connection import connect_operator
from infra.host.seeding import seed_tenants
from infra.testing.plugin import SpawnService
from schemas.broker.catalog import ACCESS, ROLES, Role
from schemas.requests.tenants import LOCAL, Tenant
from services.chassis.settings import MeshSection
from services.cli.app import COMMANDS as ALL_COMMANDS
from services.cli.tests.conftest import Cli, Outcome

MODELS = ("alpha", "beta")
AGENT = {"name": "two", "backend": "instant", "models": [{"name": name, "reply": "blue"} for name in MODELS]}
SERVICES = ("aggregator", "metrics", "modelstore", "summarizer", "agent", "router")
WORKER = (
    "--type",
    "lm_studio",
    "--host",
    "127.0.0.1",
    "--port",
    "9",
    "--model",
    "m",
    "--id",
    "w1",
    "--no-test",
)

COMMANDS: tuple[tuple[Role, str], ...] = (
    ("ask", "ask hi --model alpha --request-id r1"),
    ("ask", "ask hi --stream --model beta"),
    ("ask", "ask hi --strategy majority --request-id r2"),
    ("ask", "ask hi --model alpha --summarize-with beta"),
    ("ask", "ask hi --model alpha --submit"),
    ("ask", "fetch r1"),
    ("ask", "cancel r1"),
    ("ask", "feedback r2 --correct blue"),
    ("ask", "chat --model alpha"),
    ("ask", "models"),
    ("ask", "models --json"),
    ("ask", "batch -i document.txt -o out.json --prompt {content}"),
    ("ask", "matrix --generators alpha --summarizers beta -p hi --out matrix"),
    ("ask", "eval --benchmarks choir-mmlu --samples 2 --output results"),
    ("observe", "nodes"),
    ("observe", "status"),
    ("observe", "ps"),
    ("observe", "top --once"),
    ("observe", "requests"),
    ("observe", "trace r1"),
    ("observe", "sql 'SELECT 1'"),
    ("observe", "export --out peers"),
    ("observe", "report --out report.html"),
    ("operate", f"worker add {' '.join(WORKER)}"),
    ("operate", "worker list"),
    ("operate", "worker test w1"),
    ("operate", "worker cordon w1"),
    ("operate", "worker uncordon w1"),
    ("operate", "worker remove w1"),
    ("operate", "worker import workers.json"),
    ("operate", "nodes cordon two --instance"),
    ("operate", "nodes drain two --instance"),
    ("operate", "nodes uncordon two --instance"),
    ("operate", "shard alpha"),
    ("operate", "ensembles list"),
    ("operate", "ensembles add council"),
    ("operate", "ensembles rm council"),
    ("operate", "scores"),
    ("operate", "scores --reset"),
    ("operate", "keys add --label test"),
    ("operate", "keys list"),
    ("operate", "keys change k1 --label other"),
    ("operate", "keys revoke k1"),
    ("operate", "keys remove k1"),
    ("operate", "model list"),
    ("operate", "model show m"),
    ("operate", "model add --store modelstore models"),
    ("operate", "model copy m --to modelstore"),
    ("operate", "model copies m --min 1"),
    ("operate", "model rm m --store modelstore"),
    ("operate", "model jobs"),
    ("operate", "model load alpha"),
    ("operate", "model unload alpha"),
    ("operate", "model cancel j1 --store modelstore"),
    ("operate", "pull m --store modelstore"),
    ("operate", "dead list"),
    ("operate", "dead show 1"),
    ("operate", "dead retry 1"),
    ("operate", "dead drop 1"),
)
"""What is typed, and the least role that may."""
OF_A_SUPERVISOR: tuple[tuple[Role, str], ...] = (
    ("operate", "invite person --name friend"),
    ("operate", "tenants list"),
    ("operate", "hosts list"),
)
"""The same where the supervisor of the broker answers, which is not there: only refusals are seen here."""
NOT_OF_A_MESH = {
    "demo", "init", "up", "down", "join", "backup", "restore", "completion", "broker",
    "validate", "verify",
}  # fmt: skip
"""Commands about this host, its files or the broker that it runs: no role of a client's opens them."""


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "keys")


@pytest.fixture
def guarded(tmp_path: Path, keys: KeyRing, spawn_service: SpawnService) -> Iterator[str]:
    """The URL of a mesh with a tenant of each role."""
    services = [
        ServiceUser(access, Scope(access.service, MODELS), keys.public_key(access.service))
        for access in ACCESS
    ]
    tenants = [
        Tenant(name=f"{role}r", role=role, public_keys=(keys.public_key(f"{role}r"),)) for role in ROLES
    ]
    block = accounts(keys.public_key(OPERATOR), services, [LOCAL, *tenants], anonymous=LOCAL.name)

    async def nothing() -> None:
        """Nobody need be told."""

    with asyncio.Runner() as runner:
        broker = Broker(tmp_path / "broker", accounts=block)
        runner.run(broker.start())

        async def start() -> None:
            section = MeshSection(url=broker.url, nkey=str(keys.path(OPERATOR)))
            inside = await connect_operator(broker.url, section, nothing)
            await provision(inside, MODELS)
            await seed_tenants(inside, tenants)
            started = [
                spawn_service(
                    service, service, url=broker.url, agent=AGENT if service == "agent" else None,
                    env={
                        "CHOIR_MESH__NKEY": str(keys.path(service)),
                        "CHOIR_METRICS__FOLDER": str(tmp_path / "metrics"),
                        "CHOIR_MODELSTORE__FOLDER": str(tmp_path / "store"),
                    },
                )
                for service in SERVICES
            ]  # fmt: skip
            await asyncio.gather(*(service.wait_ready(inside) for service in started))
            await inside.close()

        try:
            runner.run(start())
            yield broker.url
        finally:
            with contextlib.suppress(Exception):
                runner.run(broker.stop())


@pytest.fixture
def typed(
    guarded: str, keys: KeyRing, offline_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str | None], Outcome]:
    """Types a command as a tenant, or without any credentials."""
    monkeypatch.setenv("CHOIR_MESH__URL", guarded)
    (tmp_path / "models").mkdir()
    (tmp_path / "document.txt").write_text("Kenya is a country.")
    (tmp_path / "workers.json").write_text(
        '[{"id": "w2", "type": "ollama", "host": "127.0.0.1", "model": "m"}]'
    )

    def type_(command: str, who: str | None) -> Outcome:
        monkeypatch.setenv("CHOIR_MESH__NKEY", "" if who is None else str(keys.path(who)))
        monkeypatch.setattr("sys.stdin", io.StringIO("hi\n"))
        return offline_cli(*shlex.split(command))

    return type_


def wrong_of(done: Outcome, command: str, least: Role, role: Role, who: str | None) -> list[str]:
    """What a command should not have done: be refused, or not; give no way out; end in any other failure."""
    said = done.err + done.out
    refused = f"needs the role {least}" in said
    unfit = any(word in said for word in ("Traceback", "mesh_unreachable", "configuration", "internal"))
    may = ROLES.index(role) >= ROLES.index(least)
    way_out = f"choir invite person --role {least}" in said and done.code == 1
    if unfit or refused == may or (refused and not way_out) or (not may and not refused):
        return [f"{who}: choir {command}: {done.code} {said[-300:]}"]
    return []


@pytest.mark.soak
def test_every_command_is_permitted_exactly_where_its_role_says(
    typed: Callable[[str, str | None], Outcome],
) -> None:
    people: list[tuple[str | None, Role]] = [(None, "operate"), *((f"{role}r", role) for role in ROLES)]
    wrong = [
        line
        for who, role in people
        for least, command in COMMANDS
        for line in wrong_of(typed(command, who), command, least, role, who)
    ]
    assert not wrong, "\n".join(wrong)


def test_who_may_ask_is_told_what_else_takes_and_a_service_s_key_asks_nothing(
    typed: Callable[[str, str | None], Outcome],
) -> None:
    short = {
        "ask hi --model alpha --request-id r1",
        "models",
        "fetch r1",
        "nodes",
        "sql 'SELECT 1'",
        "worker list",
    }
    commands = [*((least, command) for least, command in COMMANDS if command in short), *OF_A_SUPERVISOR]
    wrong = [
        line
        for least, command in commands
        for line in wrong_of(typed(command, "askr"), command, least, "ask", "askr")
    ]
    for least, command in OF_A_SUPERVISOR:
        wrong += wrong_of(typed(command, "observer"), command, least, "observe", "observer")
    assert not wrong, "\n".join(wrong)
    for command in ("ask hi --model alpha", "nodes"):
        done = typed(command, "router")
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("choir: not_permitted: ") and "choir invite person" in done.err


def test_the_table_has_every_command() -> None:
    typed = {command.split()[0] for _, command in (*COMMANDS, *OF_A_SUPERVISOR)}
    assert typed | NOT_OF_A_MESH == {entry.name for entry in ALL_COMMANDS}
    assert not typed & NOT_OF_A_MESH

"""API keys stay at home: a registration names one of the operator's, and it goes to its servers only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from nats.aio.client import Client
from pydantic import ValidationError

from infra.testing.mesh import all_kept, enqueue, eventually, generate, open_mesh
from schemas.errors import ErrorBody, ModelUnusable
from schemas.nodes.workers import Worker
from services.agent.keys import with_key
from services.agent.settings import KeySection, ModelSection
from services.agent.tests.servers.http_server import HttpServer, Reply, Request, http_server
from services.agent.tests.servers.ollama_server import ollama
from services.agent.tests.workers.worker_mesh import (
    QUICK,
    LmStudio,
    host,
    register,
    result_of,
    served,
    usable,
    worker,
)
from services.cli.workers.trial import try_worker

SECRETS = {
    "CHOIR_MESH__PASSWORD": "canary-of-the-broker",
    "AWS_SECRET_ACCESS_KEY": "canary-of-a-cloud",
    "OPENAI_API_KEY": "canary-of-openai",
    "OPENAI_ORG_ID": "canary-of-an-organisation",
    "OLLAMA_API_KEY": "canary-of-ollama",
    "PATH_TO_HEAVEN": "canary-of-something",
}
FREE = "VARIABLE_OF_A_KEY"
REFUSED = "not a key of this house"


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that is worth stealing."""
    for name, value in {**SECRETS, FREE: "the-key"}.items():
        monkeypatch.setenv(name, value)


def key(*hosts: str, variable: str = FREE) -> KeySection:
    return KeySection(variable=variable, hosts=hosts)


def leaked(server: HttpServer) -> list[str]:
    """What a server was told that it should not know."""
    sent = [f"{name}: {value}" for request in server.requests for name, value in request.headers.items()]
    return [line for line in sent if "canary" in line or line.startswith("authorization")]


async def problem_of(agent: object, worker_id: str) -> ErrorBody:
    """Why an agent does not use a worker, once it says so."""

    def said() -> ErrorBody | None:
        model = served(agent, worker_id)  # type: ignore[arg-type]
        return model.problem if model is not None and model.problem else None

    return await eventually(said)


async def kept_with(client: Client, *words: str) -> str | None:
    """All that the mesh has stored, once these words are in it."""
    kept = await all_kept(client)
    return kept if all(word in kept for word in words) else None


async def test_no_variable_of_an_agent_can_be_had_by_naming_it(connection: Client) -> None:
    async with http_server(LmStudio().handle) as one, http_server(ollama) as other:
        names = [*SECRETS, FREE]
        workers = [
            *(worker(one, f"o-{n}", key_variable=name) for n, name in enumerate(names)),
            *(worker(other, f"l-{n}", type="ollama", key_variable=name) for n, name in enumerate(names)),
        ]
        plain = [
            worker(one, "plain-o"),
            worker(other, "plain-l", type="ollama", model="tiny", served_as="beta"),
        ]
        await register(connection, *workers, *plain)
        async with host(connection) as agent:
            problems = [await problem_of(agent, entry.id) for entry in workers]
            await usable(agent, "plain-o", "plain-l")
    assert {problem.field for problem in problems} == {"key_variable"}
    assert all("[workers.keys]" in problem.message for problem in problems)
    assert one.requests and other.requests
    assert leaked(one) == leaked(other) == []


class QuotesKeys(LmStudio):
    """Refuses keys, once it `refuses`, and says in the refusal what it was sent, as many a server does."""

    refuses = False

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answers one request."""
        if self.refuses and "authorization" in request.headers:
            said = f"{REFUSED}: got {request.headers['authorization']}"
            await reply.json({"error": {"message": said}}, 401)
        else:
            await super().handle(request, reply)


async def test_a_key_goes_to_its_server_and_to_no_other(
    connection: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    quoting = QuotesKeys()
    async with http_server(quoting.handle) as mine, http_server(LmStudio().handle) as theirs:
        settings = QUICK.model_copy(update={"keys": {"LAB": key(mine.url)}})
        async with host(connection, settings=settings) as agent:
            await register(
                connection,
                worker(mine, "mine", key_variable="LAB"),
                worker(theirs, "theirs", key_variable="LAB"),
            )
            problem = await problem_of(agent, "theirs")
            await usable(agent, "mine")
            # When a task is refused with the words of the server, and another worker does it
            quoting.refuses = True
            await enqueue(open_mesh(connection), generate("r1"))
            quoted = await problem_of(agent, "mine")
            await register(connection, worker(mine, "keyless"))
            await usable(agent, "keyless")
            result = await result_of(connection, "r1")
            kept = await eventually(partial(kept_with, connection, REFUSED, '"keyless"'))
    assert (problem.code, problem.field) == ("model_unusable", "key_variable")
    assert f"is not for {theirs.url}" in problem.message and mine.url in problem.message
    assert leaked(theirs) == []
    assert set(leaked(mine)) == {"authorization: Bearer the-key"}
    # Then the key is in no lease, event, result or log, and what the server said besides is
    assert result.answers[0].instance == "keyless"
    assert REFUSED in quoted.message
    printed = capfd.readouterr()
    for told in (quoted.message, kept, printed.out + printed.err):
        assert told and "the-key" not in told


@pytest.mark.parametrize("kind", ["lm_studio", "ollama"])
async def test_a_server_that_sends_us_elsewhere_is_not_followed(connection: Client, kind: str) -> None:
    async with http_server(LmStudio().handle) as elsewhere:

        async def redirect(request: Request, reply: Reply) -> None:
            await reply.send(
                f"HTTP/1.1 307 x\r\nlocation: {elsewhere.url}{request.path}\r\ncontent-length: 0\r\n"
                "connection: close\r\n\r\n".encode()
            )

        async with http_server(redirect) as mine:
            settings = QUICK.model_copy(update={"keys": {"LAB": key(mine.url)}})
            async with host(connection, settings=settings) as agent:
                await register(connection, worker(mine, type=kind, key_variable="LAB"))
                problem = await problem_of(agent, "mac-1")
                await eventually(lambda: mine.requests)
    assert problem.code == "worker_failed"
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("bound", "url", "sent"),
    [
        ("https://api.example.com", "https://api.example.com", True),
        ("https://api.example.com", "https://API.example.com:443/", True),
        ("https://api.example.com", "http://api.example.com", False),
        ("https://api.example.com", "http://api.example.com:443", False),
        ("https://api.example.com", "https://api.example.com:8443", False),
        ("https://api.example.com", "https://api.example.com.evil.com", False),
        ("https://api.example.com", "https://api.example.com@evil.com", False),
        ("http://lab:1234", "http://lab:1234", True),
        ("http://[::1]:1234", "http://[::1]:1234", True),
    ],
)
def test_scheme_host_and_port_have_to_be_those_of_the_key(bound: str, url: str, sent: bool) -> None:
    server = {"type": "openai", "url": url, "key_variable": "LAB"}
    model = ModelSection.model_validate({"name": "m", "server": server})
    if sent:
        known = with_key(model, {"LAB": key(bound)})
        assert known.server is not None and known.server.key == "the-key"
        assert "the-key" not in repr(known) + known.model_dump_json()
    else:
        with pytest.raises(ModelUnusable, match="is not for"):
            with_key(model, {"LAB": key(bound)})


def test_a_key_may_be_in_a_file_beside_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "choir.toml").touch()
    (tmp_path / "lab.key").write_text("from-a-file\n")
    monkeypatch.setenv("CHOIR_CONFIG", str(tmp_path / "choir.toml"))
    server = {"type": "openai", "url": "https://lab", "key_variable": "LAB"}
    model = ModelSection.model_validate({"name": "m", "server": server})
    known = with_key(model, {"LAB": KeySection(file=Path("lab.key"), hosts=("https://lab",))})
    assert known.server is not None and known.server.key == "from-a-file"
    with pytest.raises(ModelUnusable, match="key LAB cannot be read from the file"):
        with_key(model, {"LAB": KeySection(file=Path("none.key"), hosts=("https://lab",))})
    monkeypatch.delenv(FREE)
    with pytest.raises(ModelUnusable, match=f"key LAB is to be in the environment variable {FREE}"):
        with_key(model, {"LAB": key("https://lab")})


@pytest.mark.parametrize(
    "entry",
    [
        {"variable": "CHOIR_MESH__PASSWORD", "hosts": ["https://lab"]},
        {"variable": "choir_mesh__password", "hosts": ["https://lab"]},
        {"variable": "A", "file": "b", "hosts": ["https://lab"]},
        {"hosts": ["https://lab"]},
        {"variable": "A", "hosts": []},
        {"variable": "A", "hosts": ["lab"]},
        {"variable": "A", "hosts": ["https://me@lab"]},
    ],
)
def test_a_key_without_place_or_servers_is_no_key(entry: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        KeySection.model_validate(entry)


@asynccontextmanager
async def registered_by_a_stranger(name: str) -> AsyncIterator[tuple[HttpServer, Worker]]:
    """A worker whose server is not what it seems."""
    async with http_server(LmStudio().handle) as server:
        yield server, worker(server, key_variable=name)


async def test_trying_a_worker_out_sends_nothing_of_the_operator_s_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHOIR_CONFIG", raising=False)
    async with registered_by_a_stranger("AWS_SECRET_ACCESS_KEY") as (server, entry):
        trial = await try_worker(entry)
        plain = await try_worker(entry.model_copy(update={"key_variable": None}))
    assert trial.problem is not None and trial.problem.field == "key_variable"
    assert plain.problem is None and leaked(server) == []

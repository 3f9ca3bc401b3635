"""A gateway that wants keys: who gets in, by which header, and to what."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from starlette.routing import Route

from infra.testing.choir_up import connect_inside
from infra.testing.mesh import eventually
from schemas import subjects
from schemas.ensembles.kept import ManageEnsembles
from schemas.requests.keys import KEY_SCOPES, KeyChange, ManageKeys, digest_of, id_in, new_secret
from schemas.requests.tenants import Tenant
from services.chassis.nats.bucket import BYTES, Bucket, messages
from services.client.client import Choir
from services.gateway.access.scopes import NEEDS, need_of, takes_tokens
from services.gateway.access.tests.conftest import HEARD_WITHIN_S, MakeKey, bearer, until_status
from services.gateway.http.app import DIALECTS
from services.gateway.requests.identity import ID_HEADER
from services.gateway.tests.serving import serving

CHAT = {"model": "choir-one", "messages": [{"role": "user", "content": "Capital?"}], "max_tokens": 5}
FOR_OPERATORS = {
    "/api/pull",
    "/api/copy",
    "/api/delete",
    "/api/create",
    "/api/push",
    "/api/blobs/{digest:path}",
}
PLACES = {"model": "x", "digest": "x", "request_id": "x", "response_id": "x"}


class _NoContext:
    """In the place of a gateway: handlers are made, and not called."""

    def __getattr__(self, _name: str) -> _NoContext:
        return self

    def __call__(self, *_: object) -> None:
        """Whatever it is told, nothing comes of it."""


def _routes() -> list[Route]:
    routes = [route for dialect in DIALECTS for route in dialect.routes(_NoContext())]  # type: ignore[arg-type]
    return [route for route in routes if isinstance(route, Route)]


def test_it_is_said_of_every_path_what_it_needs() -> None:
    named = {path for path, _ in NEEDS}
    for route in _routes():
        known = route.path in named or any(
            path.endswith("*") and route.path.startswith(path[:-1]) for path in named
        )
        assert known or route.path in FOR_OPERATORS, f"{route.path}: say in NEEDS what opens it"


async def test_only_operators_pull_copy_or_delete_models(
    locked: httpx.AsyncClient, make_key: MakeKey, live_mesh: str
) -> None:
    asks = (
        ("POST", "/api/pull", {"model": "hf.co/org/repo"}),
        ("DELETE", "/api/delete", {"model": "choir-one"}),
        ("POST", "/api/copy", {"source": "choir-one", "destination": "mine"}),
    )
    usual, operator = await make_key(), await make_key(scopes=("models", "operate"))
    for method, path, body in asks:
        refused = await locked.request(method, path, json=body, headers=bearer(usual))
        assert refused.status_code == 403 and "operate" in refused.json()["error"], path
        impossible = await locked.request(method, path, json=body, headers=bearer(operator))
        assert impossible.status_code == 501, impossible.text
    copy = {"source": "choir/majority", "destination": "of-an-operator"}
    done = await locked.post("/api/copy", json=copy, headers=bearer(operator))
    assert done.status_code == 200, done.text
    async with Choir(live_mesh) as mesh:
        (gone,) = await mesh.ensembles(ManageEnsembles(action="remove", name="of-an-operator"))
    assert gone.ensemble.strategies == ("majority",)


async def test_without_a_key_no_path_is_served_but_those_that_tell_nothing(locked: httpx.AsyncClient) -> None:
    for route in _routes():
        path = route.path.replace("{model:path}", "x").replace("{digest:path}", "x")
        for name in route.param_convertors:
            path = path.replace(f"{{{name}}}", "x")
        for method in (route.methods or set()) - {"HEAD"}:
            reply = await locked.request(method, path, headers={"x-forwarded-for": "127.0.0.1"})
            public = need_of(route.path, method) == "nothing" and route.path != "/dashboard/login"
            assert (reply.status_code in (200, 404)) if public else (reply.status_code == 401), path


@pytest.mark.parametrize(
    "path",
    ["/v1/../v1/models", "//v1/models", "/v1/v1/models", "/ollama/api/tags", "/v1%2Fmodels", "/v1/models/"],
)
async def test_no_way_of_writing_a_path_goes_round_the_key(locked: httpx.AsyncClient, path: str) -> None:
    assert (await locked.get(path)).status_code in (401, 404, 307)


async def test_each_dialect_says_no_in_its_own_words(locked: httpx.AsyncClient) -> None:
    openai = await locked.post("/v1/chat/completions", json=CHAT)
    assert openai.json()["error"]["type"] == "authentication_error"
    assert openai.json()["error"]["code"] == "unauthenticated"
    assert isinstance((await locked.post("/api/chat", json=CHAT)).json()["error"], str)
    assert (await locked.get("/api/distributed/status")).json()["error"]["code"] == "unauthenticated"


async def test_a_key_is_taken_from_any_of_its_headers_and_from_one_only(
    locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    secret, other = await make_key(), await make_key()
    for headers in (
        bearer(secret),
        {"authorization": f"bearer {secret}"},
        {"x-api-key": secret},
        {"api-key": secret},
    ):
        assert (await locked.get("/v1/models", headers=headers)).status_code == 200
    for headers in (
        {**bearer(secret), "x-api-key": other},
        {"authorization": f"Basic {secret}"},
        {"authorization": secret},
        {"cookie": f"authorization=Bearer {secret}"},
        bearer(secret + "x"),
        bearer(secret[:-1]),
        bearer(secret.upper()),
        bearer("sk-none"),
    ):
        assert (await locked.get("/v1/models", headers=headers)).status_code == 401, headers
    assert (await locked.get(f"/v1/models?api_key={secret}")).status_code == 401


@pytest.mark.parametrize("scope", KEY_SCOPES)
async def test_a_key_opens_its_scope_and_no_other(
    locked: httpx.AsyncClient, make_key: MakeKey, scope: str
) -> None:
    headers = bearer(await make_key(scopes=(scope,)))
    asked = {
        "models": await locked.get("/api/tags", headers=headers),
        "generate": await locked.post("/v1/chat/completions", headers=headers, json=CHAT),
        "embed": await locked.post("/api/embed", headers=headers, json={"model": "choir-one", "input": []}),
        "observe": await locked.get("/api/distributed/models", headers=headers),
        "operate": await locked.post("/api/create", headers=headers, json={}),
    }
    refused = {name for name, reply in asked.items() if reply.status_code == 403}
    assert refused == set(asked) - {scope}


async def test_a_key_of_some_models_sees_and_asks_no_others(
    locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    headers = bearer(await make_key(models=("choir-one",)))
    listed = (await locked.get("/v1/models", headers=headers)).json()["data"]
    assert [model["id"] for model in listed] == ["choir-one"]
    assert (await locked.post("/v1/chat/completions", headers=headers, json=CHAT)).status_code == 200
    for model in ("choir-two", "choir/majority"):
        reply = await locked.post("/v1/chat/completions", headers=headers, json={**CHAT, "model": model})
        assert reply.status_code == 404
        assert "choir-two" not in reply.text.replace(f"'{model}'", "")


async def test_a_revoked_a_changed_and_an_ended_key(
    live_mesh: str, locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    secret = await make_key(expires_at_s=time.time() + 3600)
    async with Choir(live_mesh) as mesh:
        known = next(key for key in await mesh.keys(ManageKeys()) if secret.startswith(f"choir-{key.id}-"))
        await mesh.keys(
            ManageKeys(action="change", id=known.id, change=KeyChange(expires_at_s=time.time() - 1))
        )
        await until_status(locked, secret, lambda status: status == 401)
        later = KeyChange(expires_at_s=time.time() + 3600)
        await mesh.keys(ManageKeys(action="change", id=known.id, change=later))
        await until_status(locked, secret, lambda status: status == 200)
        await mesh.keys(ManageKeys(action="revoke", id=known.id))
        await until_status(locked, secret, lambda status: status == 401)
        await mesh.keys(ManageKeys(action="change", id=known.id, change=later))
        assert (await locked.get("/v1/models", headers=bearer(secret))).status_code == 401


async def test_a_key_that_is_not_good_is_refused_in_the_same_words_whatever_is_wrong_with_it(
    live_mesh: str, locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    # Given keys of which one is good, one ends, one is revoked, and one's tenant is let in no more
    good, ended, revoked = [await make_key() for _ in range(3)]
    shut_out = await make_key(tenant="geology")
    async with Choir(live_mesh) as mesh:
        past = KeyChange(expires_at_s=time.time() - 1)
        await mesh.keys(ManageKeys(action="change", id=id_in(ended), change=past))
        await mesh.keys(ManageKeys(action="revoke", id=id_in(revoked)))
    connection = await connect_inside(live_mesh)
    try:
        tenants = Bucket(connection, subjects.TENANTS_BUCKET, messages(Tenant))
        gone = Tenant(name="geology", role="ask", revoked_at_s=time.time() - 1)
        await tenants.put(subjects.tenant_key("geology"), gone)
        for secret in (ended, revoked, shut_out):
            await until_status(locked, secret, lambda status: status == 401)
        await tenants.delete(subjects.tenant_key("geology"))
    finally:
        await connection.close()
    other_letter = good[:-1] + ("A" if good[-1] != "A" else "B")
    # When each is shown, and others that never were any
    shown = (ended, revoked, other_letter, good.upper(), new_secret("k-nobody"), "sk-none", good + "x")
    for path, body in (("/v1/chat/completions", CHAT), ("/api/chat", CHAT)):
        replies = [await locked.post(path, json=body, headers=bearer(secret)) for secret in shown]
        # Then nobody can tell by the reply what is wrong
        assert {reply.status_code for reply in replies} == {401}
        assert len({reply.content for reply in replies}) == 1, {reply.text for reply in replies}
        assert len({frozenset(reply.headers.items() - _times(reply)) for reply in replies}) == 1


def _times(reply: httpx.Response) -> set[tuple[str, str]]:
    return {field for field in reply.headers.items() if field[0] in ("date", ID_HEADER)}


async def test_secrets_are_compared_in_a_time_that_says_nothing(
    locked: httpx.AsyncClient, make_key: MakeKey, compared_digests: list[tuple[str, str]]
) -> None:
    secret = await make_key()
    compared_digests.clear()
    assert (await locked.get("/v1/models", headers=bearer(secret))).status_code == 200
    assert compared_digests == [(digest_of(secret), digest_of(secret))]


async def test_a_key_at_its_limit_is_told_when_to_come_back_and_others_notice_nothing(
    locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    limited = bearer(await make_key(limits={"tokens_per_minute": 1}))
    other = bearer(await make_key())
    assert (await locked.post("/v1/chat/completions", headers=limited, json=CHAT)).status_code == 200
    over = await locked.post("/v1/chat/completions", headers=limited, json=CHAT)
    assert over.status_code == 429
    assert 0 < int(over.headers["retry-after"]) <= 60
    assert (await locked.post("/v1/chat/completions", headers=other, json=CHAT)).status_code == 200
    background = {"model": "choir-one", "input": "Capital?", "background": True}
    assert (await locked.post("/v1/responses", headers=other, json=background)).status_code == 200
    # What takes no tokens goes on: clients look for their model first, and count tokens to have fewer
    for path in ("/api/tags", "/api/ps", "/v1/models", "/v1/models/choir-one", "/v1/files", "/v1/batches"):
        assert (await locked.get(path, headers=limited)).status_code == 200, path
    for path in ("/api/show", "/v1/messages/count_tokens"):
        assert (await locked.post(path, headers=limited, json=CHAT)).status_code != 429, path
    for path in ("/api/generate", "/v1/responses", "/v1/messages"):
        assert (await locked.post(path, headers=limited, json=CHAT)).status_code == 429, path


def test_what_takes_tokens_is_what_a_model_reads_or_writes() -> None:
    taking = {
        route.path
        for route in _routes()
        for method in route.methods or ()
        if takes_tokens(route.path, method)
    }
    assert taking == {
        "/api/chat",
        "/api/generate",
        "/api/embed",
        "/api/embeddings",
        "/v1/chat/completions",
        "/v1/completions",
        "/models/{model:path}/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/dashboard/ask/answers",
    }


async def test_gateways_count_the_tokens_of_a_key_together(
    live_mesh: str, locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    # Given three gateways, a key for 100 tokens a minute, and how many tokens a request takes
    one = (await locked.post("/v1/chat/completions", headers=bearer(await make_key()), json=CHAT)).json()
    each, most = one["usage"]["total_tokens"], 100
    first = (
        time.time_ns() % 2**30
    )  # none of them has been asked, or its answer would be at hand and cost nothing
    asked = [CHAT | {"seed": first + number} for number in range(3 * most)]
    key = bearer(await make_key(limits={"tokens_per_minute": most}))
    async with (
        serving(live_mesh, keys_required=True) as second,
        serving(live_mesh, keys_required=True) as third,
        httpx.AsyncClient(base_url=second, timeout=180) as other,
        httpx.AsyncClient(base_url=third, timeout=180) as another,
    ):
        gateways = (locked, other, another)
        began_s, used = time.monotonic(), 0
        # When it asks them in turn, then it gets its limit, and less than one request more
        for number, question in enumerate(asked):
            reply = await gateways[number % 3].post("/v1/chat/completions", headers=key, json=question)
            if reply.status_code != 200:
                break
            used += reply.json()["usage"]["total_tokens"]
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        waited_s = time.monotonic() - began_s
        assert most <= used < most + each or waited_s > 50
        for gateway in gateways:
            over = await gateway.post("/v1/chat/completions", headers=key, json=asked[-1])
            assert over.status_code == 429 or waited_s > 50
            assert 0 < int(over.headers.get("retry-after", "1")) <= 60
        # And of those who ask all three at once no one's tokens are lost
        crowd = bearer(await make_key(limits={"tokens_per_minute": 1_000_000}))
        replies = await asyncio.gather(
            *(
                gateways[number % 3].post("/v1/chat/completions", headers=crowd, json=asked[-1 - number])
                for number in range(30)
            )
        )
        assert {each.status_code for each in replies} == {200}
        connection = await connect_inside(live_mesh)
        try:
            bucket = Bucket(connection, subjects.KEY_USES_BUCKET, BYTES)
            secret = crowd["authorization"].removeprefix("Bearer ")
            counted = (await bucket.get(subjects.key_use(id_in(secret) or ""))).value or b""
        finally:
            await connection.close()
        total = sum(int(part.split(b":")[1]) for part in counted.split())
        sent = sum(each.json()["usage"]["total_tokens"] for each in replies)
        assert total == sent or time.monotonic() - began_s > 50


async def test_text_that_a_client_hung_up_on_before_its_end_counts(
    locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    limited = bearer(await make_key(limits={"tokens_per_minute": 1}))
    body = {**CHAT, "model": "choir-four", "stream": True}
    async with locked.stream("POST", "/v1/chat/completions", headers=limited, json=body) as reply:
        async for line in reply.aiter_lines():
            if '"content":"It' in line.replace(" ", ""):
                break

    async def is_over() -> bool:
        of_nothing = await locked.post("/v1/chat/completions", headers=limited, json={})
        return of_nothing.status_code == 429

    await eventually(is_over)


async def test_work_that_nobody_would_count_is_not_done_for_a_key_whose_tokens_are_counted(
    locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    limited = bearer(await make_key(limits={"tokens_per_minute": 1_000}))
    background = {"model": "choir-one", "input": "Capital?", "background": True}
    reply = await locked.post("/v1/responses", headers=limited, json=background)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "background")


async def test_a_key_has_no_more_requests_in_work_than_it_may(
    locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    headers = bearer(await make_key(limits={"requests_in_flight": 2}))
    replies = await asyncio.gather(
        *(locked.post("/v1/chat/completions", headers=headers, json=CHAT) for _ in range(12))
    )
    assert {reply.status_code for reply in replies} == {200, 429}
    assert (await locked.post("/v1/chat/completions", headers=headers, json=CHAT)).status_code == 200


async def test_gateways_count_together_what_a_key_has_in_work(
    live_mesh: str, locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    headers = bearer(await make_key(limits={"requests_in_flight": 2}))
    long = {**CHAT, "model": "choir-slow", "stream": True}
    async with (
        serving(live_mesh, keys_required=True, first_byte_s=0.01) as second,
        serving(live_mesh, keys_required=True, first_byte_s=0.01) as third,
        httpx.AsyncClient(base_url=second, timeout=180, headers=headers) as other,
        httpx.AsyncClient(base_url=third, timeout=180, headers=headers) as another,
    ):
        async with other.stream("POST", "/v1/chat/completions", json=long) as one:
            assert one.status_code == 200
            async with another.stream("POST", "/v1/chat/completions", json=long) as two:
                assert two.status_code == 200
                over = await locked.post("/v1/chat/completions", headers=headers, json=CHAT)
                assert (over.status_code, over.headers["retry-after"]) == (429, "1")
                assert "at a time: 2" in over.json()["error"]["message"]

        async def is_served() -> bool:
            reply = await locked.post("/v1/chat/completions", headers=headers, json=CHAT)
            return reply.status_code == 200

        await eventually(is_served)


async def test_who_guesses_keys_is_made_to_wait_and_a_valid_key_is_not(
    locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    secret = await make_key()
    guesses = [
        (await locked.get("/v1/models", headers=bearer(f"choir-k-guess-{number}"))).status_code
        for number in range(30)
    ]
    assert guesses[:10] == [401] * 10
    assert guesses[-1] == 429
    assert (await locked.get("/v1/models", headers=bearer(secret))).status_code == 200


async def test_on_this_host_no_key_is_needed_and_a_wrong_one_is_refused_all_the_same(live_mesh: str) -> None:
    async with serving(live_mesh) as url, httpx.AsyncClient(base_url=url, timeout=60) as http:
        assert (await http.get("/v1/models")).status_code == 200
        assert (await http.get("/v1/models", headers=bearer("ollama"))).status_code == 200
        assert (await http.get("/v1/models", headers=bearer("choir-k-0-gone"))).status_code == 401


async def test_a_key_opens_no_more_than_its_tenant_may(
    live_mesh: str, locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    known = bearer(await make_key(tenant="biology", scopes=KEY_SCOPES))
    unknown = bearer(await make_key(tenant="nobody-knows-it", scopes=KEY_SCOPES))
    connection = await connect_inside(live_mesh)
    try:
        bucket = Bucket(connection, subjects.TENANTS_BUCKET, messages(Tenant))
        await bucket.put(subjects.tenant_key("biology"), Tenant(name="biology", role="observe"))
        await _until(locked, known, "/api/distributed/models", 200)
        assert (await locked.get("/api/distributed/models", headers=unknown)).status_code == 403
        assert (await locked.post("/v1/chat/completions", headers=unknown, json=CHAT)).status_code == 200
        assert (await locked.post("/api/create", headers=known, json={})).status_code == 403
        ended = Tenant(name="biology", role="observe", revoked_at_s=time.time() - 1)
        await bucket.put(subjects.tenant_key("biology"), ended)
        await _until(locked, known, "/v1/models", 401)
        await bucket.delete(subjects.tenant_key("biology"))
    finally:
        await connection.close()


async def _until(http: httpx.AsyncClient, headers: dict[str, str], path: str, status: int) -> None:
    async with asyncio.timeout(HEARD_WITHIN_S):
        while True:
            if (await http.get(path, headers=headers)).status_code == status:
                return
            await asyncio.sleep(0.02)


async def test_tenants_share_no_answers_and_a_key_may_take_none_from_the_cache(
    locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    question = {**CHAT, "temperature": 0, "seed": time.time_ns() % 2**32}
    as_response = {key: question[key] for key in ("model", "temperature", "seed")} | {"input": "Capital?"}
    uses = []
    for fields in (
        {"tenant": "alice"},
        {"tenant": "bob"},
        {"tenant": "alice"},
        {"tenant": "bob", "cache": False},
    ):
        headers = bearer(await make_key(**fields))
        replies = (
            await locked.post("/v1/chat/completions", headers=headers, json=question),
            await locked.post("/v1/responses", headers=headers, json=as_response),
        )
        uses.append(tuple(reply.headers.get("choir-cache") for reply in replies))
    assert uses == [(use, use) for use in ("miss", "miss", "hit", "off")]

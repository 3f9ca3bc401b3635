"""What one tenant made, another does not find: under its id there is nothing."""

from __future__ import annotations

from typing import Any

import httpx

from infra.testing.mesh import eventually
from services.gateway.access.tests.conftest import MakeKey, bearer

ASK = {"model": "choir-one", "input": "Capital?"}
LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "choir-one", '
LINE += b'"messages": [{"role": "user", "content": "Capital?"}]}}\n'


async def test_responses_files_batches_and_requests_of_others_are_unknown(
    locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    scopes = ("models", "generate", "observe")
    own = bearer(await make_key(tenant="physics", scopes=scopes))
    other = bearer(await make_key(tenant="chemistry", scopes=scopes))

    response = (await locked.post("/v1/responses", headers=own, json=ASK)).json()["id"]
    upload: dict[str, Any] = {"data": {"purpose": "batch"}, "files": {"file": ("in.jsonl", LINE)}}
    file = (await locked.post("/v1/files", headers=own, **upload)).json()["id"]
    request = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = (await locked.post("/v1/batches", headers=own, json=request)).json()["id"]

    for path in (f"/v1/responses/{response}", f"/v1/files/{file}", f"/v1/batches/{batch}"):
        assert (await locked.get(path, headers=own)).status_code == 200, path
        foreign = await locked.get(path, headers=other)
        unknown = await locked.get(path[:-4] + "0000", headers=other)
        assert (foreign.status_code, unknown.status_code) == (404, 404), path
    for method, path in (
        ("DELETE", f"/v1/responses/{response}"),
        ("DELETE", f"/v1/files/{file}"),
        ("GET", f"/v1/files/{file}/content"),
        ("POST", f"/v1/batches/{batch}/cancel"),
    ):
        assert (await locked.request(method, path, headers=other)).status_code == 404, path
    follow = {**ASK, "previous_response_id": response}
    assert (await locked.post("/v1/responses", headers=other, json=follow)).status_code == 404
    assert (await locked.post("/v1/batches", headers=other, json=request)).status_code in (400, 404)
    assert (await locked.get("/v1/files", headers=other)).json()["data"] == []
    assert (await locked.get("/v1/batches", headers=other)).json()["data"] == []


async def test_a_stream_of_another_is_not_taken_up(locked: httpx.AsyncClient, make_key: MakeKey) -> None:
    own, other = bearer(await make_key(tenant="physics")), bearer(await make_key(tenant="chemistry"))
    path, hello = "/v1/chat/completions", [{"role": "user", "content": "Capital?"}]
    chat = {"model": "choir-four", "messages": hello, "stream": True, "background": True}
    # Given a stream of which its client had some of the text
    whole = (await locked.post(path, headers=own, json=chat)).text
    places = [line.removeprefix("id: ") for line in whole.splitlines() if line.startswith("id: ")]
    request_id, _, place = places[2].partition(":")
    rest = (await locked.post(path, headers={**own, "last-event-id": places[2]}, json=chat)).text
    assert "course" in rest and "It" not in rest
    # When another tenant sends that place with a question of its own, to another model
    asked = {**chat, "model": "choir-one"}
    told = []
    for said in (request_id, "nobodys-request"):
        reply = await locked.post(path, headers={**other, "last-event-id": f"{said}:{place}"}, json=asked)
        told.append(reply.text)
    # Then it is told what any place is that is none of its own
    assert told[0] == told[1] and "differs" in told[0]
    assert "course" not in told[0] and "content" not in told[0]

    # And a response that goes on in the background has no stream for another
    background = {**ASK, "model": "choir-four", "background": True}
    response = (await locked.post("/v1/responses", headers=own, json=background)).json()["id"]
    streamed = {"stream": "true", "starting_after": "1"}
    seen = await locked.get(f"/v1/responses/{response}", headers=own, params=streamed)
    assert seen.status_code == 200 and "course" in seen.text
    unknown = response[:-4] + "0000"
    foreign, nothing = [
        await locked.get(f"/v1/responses/{one}", headers=other, params=streamed)
        for one in (response, unknown)
    ]
    assert (foreign.status_code, nothing.status_code) == (404, 404)
    assert foreign.text.replace(response, "") == nothing.text.replace(unknown, "")
    assert "course" not in foreign.text


async def test_a_list_of_requests_has_the_own_ones_alone_but_for_operators(
    locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    path = "/api/distributed/requests"
    keys = {
        "physics": bearer(await make_key(tenant="physics")),
        "chemistry": bearer(await make_key(tenant="chemistry")),
        "local": bearer(await make_key()),
        "operator": bearer(await make_key(scopes=("observe",))),
    }
    ids = {}
    for tenant in ("physics", "chemistry", "local"):
        chat = {"model": "choir-one", "messages": [{"role": "user", "content": tenant}]}
        reply = await locked.post("/v1/chat/completions", headers=keys[tenant], json=chat)
        ids[tenant] = reply.headers["choir-request-id"]
    owned = {"physics": f"physics={ids['physics']}", "chemistry": f"chemistry={ids['chemistry']}"}
    owned["local"] = ids["local"]

    async def listed(who: str, **query: str) -> list[tuple[str, str]]:
        reply = await locked.get(path, headers=keys[who], params=query)
        assert reply.status_code == 200, reply.text
        return [(row["tenant"], row["request_id"]) for row in reply.json()["requests"]]

    async def all_told() -> bool:
        return set(owned.items()) <= set(await listed("operator", limit="50", state="answered"))

    await eventually(all_told)
    for tenant in ("physics", "chemistry", "local"):
        seen = await listed(tenant, limit="1000")
        assert (tenant, ids[tenant]) in seen and {whose for whose, _ in seen} == {tenant}
        assert await listed(tenant, tenant="another") == []
        assert (tenant, ids[tenant]) in await listed(tenant, tenant=tenant)
        assert await listed("operator", tenant=tenant, id=ids[tenant]) == [(tenant, owned[tenant])]

        # And the way of each is told to its owner under the id that the list gives, and to operators
        own = (await locked.get(f"{path}/{ids[tenant]}", headers=keys[tenant])).json()
        assert own["waterfall"]["pieces"] and own["text"] == "Paris"
        other = {"physics": "chemistry", "chemistry": "local", "local": "physics"}[tenant]
        for said in {ids[tenant], owned[tenant]}:
            foreign = await locked.get(f"{path}/{said}", headers=keys[other])
            assert (foreign.status_code, foreign.json()["error"]["code"]) == (404, "unknown_request")
            assert "waterfall" not in foreign.json() and tenant not in foreign.text.replace(said, "")
    looked = (await locked.get(f"{path}/{owned['physics']}", headers=keys["operator"])).json()
    assert looked["tenant"] == "physics" and looked["waterfall"]["pieces"] and "text" not in looked
    # And a page of the dashboard has the times of a tenant's own request, and of no other's
    page = (await locked.get(f"/dashboard/requests/{ids['physics']}", headers=keys["physics"])).text
    assert "generating" in page or "in the agent" in page
    for said in (owned["physics"], ids["physics"]):
        assert (await locked.get(f"/dashboard/requests/{said}", headers=keys["local"])).status_code == 404

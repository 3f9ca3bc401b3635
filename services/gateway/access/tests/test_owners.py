"""What one tenant made, another does not find: under its id there is nothing."""

from __future__ import annotations

from typing import Any

import httpx

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

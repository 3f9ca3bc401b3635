"""What the access log says of replies that come in pieces, or from memory."""

from __future__ import annotations

import re

import httpx
import pytest

from services.gateway.tests.serving import serving

HELLO = [{"role": "user", "content": "How much is that?"}]


async def test_a_line_has_the_bytes_of_a_reply_however_it_was_sent(
    live_mesh: str, capsys: pytest.CaptureFixture[str]
) -> None:
    same = {"model": "choir-four", "messages": HELLO, "temperature": 0}
    bodies = [*[same] * 3, {**same, "stream": True}]
    async with (
        serving(live_mesh, access_log=True) as url,
        httpx.AsyncClient(base_url=url, timeout=180) as http,
    ):
        replies = [await http.post("/v1/chat/completions", json=body) for body in bodies]
        replies += [await http.post("/api/chat", json=body) for body in bodies]
        replies += [await http.get("/api/version"), await http.head("/api/version")]

    assert {reply.status_code for reply in replies} == {200}
    assert replies[2].headers["choir-cache"] == "hit"
    told = re.findall(r"bytes\S*=\S*?(\d+)", re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out))
    assert [int(size) for size in told] == [len(reply.content) for reply in replies]

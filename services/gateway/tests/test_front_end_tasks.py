"""What a chat front end asks for itself is not the work of a whole ensemble."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from infra.testing.choir_up import QUARTET
from services.gateway.tests.serving import serving

TITLE = """### Task:
Generate a concise, 3-5 word title with an emoji summarizing the chat history.
### Chat History:
<chat_history>
USER: What is the capital of France?
</chat_history>"""
TAGS = """### Task:
Generate 1-3 broad tags categorizing the main themes of the chat history, along with more specific ones.

### Guidelines:
- Use only ["General"] where the content is too short

### Output:
JSON format: { "tags": ["tag1", "tag2", "tag3"] }

### Chat History:
<chat_history>
USER: What is the capital of France?
ASSISTANT: Paris
</chat_history>"""
FOLLOW_UPS = """### Task:
Suggest 3-5 relevant follow-up questions that the user might naturally ask next as a **user**.
### Guidelines:
- Write them from the user\u2019s point of view, directed to the assistant.
### Output:
JSON format: { "follow_ups": ["Question 1?", "Question 2?", "Question 3?"] }
### Chat History:
<chat_history>
USER: What is the capital of France?
ASSISTANT: Paris
</chat_history>"""
QUESTION = "What is ### Task: and <chat_history>?"


async def topology(http: httpx.AsyncClient, path: str, content: str, model: str) -> str:
    said = "input" if path == "/v1/responses" else "messages"
    body: dict[str, Any] = {"model": model, said: [{"role": "user", "content": content}], "stream": False}
    reply = await http.post(path, json={**body, **({"max_tokens": 48} if path == "/v1/messages" else {})})
    assert reply.status_code == 200, reply.text
    request_id = reply.headers["choir-request-id"]
    told = (await http.get(f"/api/distributed/requests/{request_id}")).json()
    return f"{told['topology']} {len(told['answers'])}"


PATHS = ("/api/chat", "/v1/chat/completions", "/v1/responses", "/v1/messages")


@pytest.mark.parametrize("path", PATHS)
async def test_titles_tags_and_questions_are_the_work_of_the_task_model(live_mesh: str, path: str) -> None:
    settings: dict[str, Any] = {"sets": {"four": QUARTET}, "task_model": "choir-two"}
    async with serving(live_mesh, **settings) as url, httpx.AsyncClient(base_url=url, timeout=60) as http:
        for task in (TITLE, TAGS, FOLLOW_UPS):
            assert await topology(http, path, task, "choir/majority@four") == "single 1"
        assert await topology(http, path, QUESTION, "choir/majority@four") == "ensemble 4"
        assert await topology(http, path, TITLE, "choir-one") == "single 1"


async def test_without_a_task_model_the_ensemble_does_it(live_mesh: str) -> None:
    async with (
        serving(live_mesh, sets={"four": QUARTET}) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as http,
    ):
        assert await topology(http, "/api/chat", TITLE, "choir/majority@four") == "ensemble 4"

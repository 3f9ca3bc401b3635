"""A server is not measured by what its client still has to import."""

from __future__ import annotations

import subprocess
import sys

IMPORTED_BY_A_FIRST_REQUEST = """
import asyncio, sys
from schemas.errors import WorkerFailed
from schemas.workers import Worker
from services.agent.settings import WorkersSection
from services.agent.workers.external import connect, look

async def first_look():
    backend = connect(Worker(id="a", type="lm_studio", host="127.0.0.1", port=9, model="m"), WorkersSection())
    before = set(sys.modules)
    try:
        await look(backend, 60)
    except WorkerFailed:
        pass
    print(*sorted(name for name in set(sys.modules) - before if name.startswith("openai.")))

asyncio.run(first_look())
"""


def test_the_first_request_to_a_server_imports_nothing_of_its_client() -> None:
    told = subprocess.run(
        [sys.executable, "-c", IMPORTED_BY_A_FIRST_REQUEST], capture_output=True, text=True, check=True
    )
    late = [name for name in told.stdout.split() if name.startswith("openai.resources")]
    assert late == []

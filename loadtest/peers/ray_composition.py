"""Ray Serve: four replicas that answer at once, and one that asks all of them and takes the majority.

Runs in Ray's own environment and imports nothing of Choir: `python ray_composition.py PORT`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

ANSWERS = ("Paris", "Paris", "Lyon", "Paris")
LITTLE = {"num_cpus": 0.1}


@serve.deployment(ray_actor_options=LITTLE, max_ongoing_requests=256)
class Replica:
    """Answers at once."""

    def __init__(self, answer: str) -> None:
        self._answer = answer

    async def __call__(self, _prompt: str) -> str:
        return self._answer


@serve.deployment(ray_actor_options=LITTLE, max_ongoing_requests=256)
class Majority:
    """Asks all replicas at once."""

    def __init__(self, *replicas: Any) -> None:
        self._replicas = replicas

    async def __call__(self, request: Request) -> dict[str, Any]:
        if request.method == "GET":
            return {"ready": True}
        prompt = (await request.json())["prompt"]
        answers = await asyncio.gather(*(replica.remote(prompt) for replica in self._replicas))
        counted = Counter(answers)
        return {"answer": counted.most_common(1)[0][0], "votes": dict(counted)}


def main() -> None:
    """Serves until it is ended."""
    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    replicas = [
        Replica.options(name=f"replica-{number}").bind(answer)  # type: ignore[attr-defined]
        for number, answer in enumerate(ANSWERS)
    ]
    serve.run(Majority.bind(*replicas), blocking=True)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()

"""The latest requests that pass a filter, from the event database."""

from __future__ import annotations

from typing import Any

from schemas.requests.queries import Scalar
from services.client.client import Choir
from services.gateway.history.filter import CONDITION

STATEMENT = f"""
SELECT
    request_id, epoch(accepted_at) AS accepted_at_s, status, topology, models, strategies, total_ms,
    prompt_tokens, generated_tokens, error_code
FROM requests
WHERE {CONDITION}
ORDER BY accepted_at DESC, request_id DESC
LIMIT $most::BIGINT
"""


async def latest(mesh: Choir, parameters: dict[str, Scalar], most: int) -> list[dict[str, Any]]:
    """At most so many requests that the parameters of `CONDITION` let through, the newest first.

    Raises MeshUnreachable where there is no metrics service.
    """
    return (await mesh.sql(STATEMENT, {**parameters, "most": most}, max_rows=most)).by_name()

"""API keys for people: a table, and a new key with its secret."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.table import Table

from schemas.message import Struct
from schemas.requests.keys import ApiKey
from services.cli.views.tables.overview_tables import table
from services.cli.views.terminal import plain
from services.cli.workers.tables import ago


class NewKey(Struct):
    """A key that was made just now, and its secret, which nobody can read again."""

    secret: str
    key: ApiKey


def keys_table(keys: Iterable[ApiKey]) -> Table:
    """A line for each."""
    rows = table("key", "label", "tenant", "opens", "models", "limits", "state", "age")
    now_s = time.time()
    for key in keys:
        rows.add_row(
            key.id,
            f"{plain(key.label)} (...{key.ending})".lstrip(),
            key.tenant,
            ", ".join(key.scopes),
            ", ".join(map(plain, key.models)) or "all",
            "\n".join(limits_of(key)) or "-",
            state_text(key, now_s),
            ago(now_s - key.created_at_s),
        )
    return rows


def limits_of(key: ApiKey) -> list[str]:
    """`8 at a time`, `120 requests/min`, `60,000 tokens/min`, `0.01 of the queue`, `all is batch work`."""
    parts = []
    if key.limits.requests_in_flight is not None:
        parts.append(f"{key.limits.requests_in_flight:,} at a time")
    if key.limits.requests_per_minute is not None:
        parts.append(f"{key.limits.requests_per_minute:,} requests/min")
    if key.limits.tokens_per_minute is not None:
        parts.append(f"{key.limits.tokens_per_minute:,} tokens/min")
    if key.limits.batch_share is not None:
        parts.append(f"{key.limits.batch_share:g} of the queue")
    if key.priority == "batch":
        parts.append("all is batch work")
    return parts


def state_text(key: ApiKey, now_s: float) -> str:
    """`good`, `good for 12 d`, `revoked`, `ended`."""
    if key.revoked:
        return "revoked"
    if key.expires_at_s is None:
        return "good"
    return f"good for {ago(key.expires_at_s - now_s)}" if key.usable(now_s) else "ended"

"""Recent requests, from the event database."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from schemas.message import Struct
from services.cli.views.tables.overview_tables import NOTHING, table
from services.client.client import Choir

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
MS_PER_S = 1000
MOST_NAMED = 3
"""More strategies than these are counted, not named."""
COLUMNS = (
    *("request_id", "accepted_at_s", "status", "topology", "models", "strategies"),
    *("took_ms", "error_code"),
)
STATEMENT = """
SELECT
    request_id, epoch(accepted_at) AS accepted_at_s, status, topology, models, strategies,
    total_ms AS took_ms, error_code
FROM requests
WHERE len($states::VARCHAR) = 0 OR list_contains(string_split($states::VARCHAR, ','), status)
ORDER BY accepted_at DESC, request_id DESC
LIMIT $count::BIGINT
"""
STYLES = {"open": "yellow", "failed": "red"}


class RecentRequest(Struct):
    """A request: `status` is open, answered or failed; `took_ms` is from acceptance to the stored result."""

    request_id: str
    accepted_at_s: float
    status: str
    topology: str
    models: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    took_ms: float | None = None
    error_code: str | None = None


class RecentRequests(Struct):
    """What `choir requests --json` prints, the latest first."""

    requests: tuple[RecentRequest, ...]


async def recent_requests(mesh: Choir, states: Sequence[str], limit: int) -> RecentRequests:
    """The latest requests in one of these states, or in any if there are none."""
    rows = await mesh.sql(STATEMENT, {"states": ",".join(states), "count": limit}, max_rows=limit)
    found = (dict(zip(COLUMNS, row, strict=True)) for row in rows.rows)
    return RecentRequests(requests=tuple(RecentRequest.model_validate(_filled(one)) for one in found))


def _filled(columns: dict[str, object]) -> dict[str, object]:
    """Without the columns that are null: a request of one model has no strategies."""
    return {name: value for name, value in columns.items() if value is not None}


def requests_table(recent: RecentRequests, now_s: float) -> Table:
    """A line for each."""
    rows = table("request", "age", "status", "took", "asked", right=("age", "took"), named=True)
    for request in recent.requests:
        rows.add_row(
            request.request_id,
            age(now_s - request.accepted_at_s),
            Text(request.error_code or request.status, STYLES.get(request.status, "")),
            took(request.took_ms),
            asked(request),
        )
    return rows


def asked(request: RecentRequest) -> str:
    """`choir-llama`; `choir-llama → choir-gemma` of a chain; `4 models: majority, isp` of an ensemble."""
    if request.topology == "ensemble":
        models = request.models[0] if len(request.models) == 1 else f"{len(request.models)} models"
        few = len(request.strategies) <= MOST_NAMED
        how = ", ".join(request.strategies) if few else f"{len(request.strategies)} strategies"
        return f"{models}: {how}"
    return " → ".join(request.models) or NOTHING


def age(seconds: float) -> str:
    """`8 s`, `12 min`, `3 h`, `2 d`."""
    for unit_s, unit in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if seconds >= unit_s:
            return f"{seconds // unit_s:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def took(milliseconds: float | None) -> str:
    """`12 ms`, `3.4 s`; a dash while it is open."""
    if milliseconds is None:
        return NOTHING
    if milliseconds >= MS_PER_S:
        return f"{milliseconds / MS_PER_S:.1f} s"
    return f"{milliseconds:.0f} ms"

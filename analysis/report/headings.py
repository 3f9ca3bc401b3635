"""Headings of a report's tables: words and units instead of names of SQL. Pure."""

from __future__ import annotations

import re

WORDS = {
    "topology": "way",
    "p50_ms": "median, ms",
    "task_tokens_per_s_p50": "tokens/s, median task",
    "tokens_per_s": "tokens/s",
    "prompt_tokens_per_s": "prompt tokens/s",
    "mean_share": "mean share of votes",
    "mean_margin": "mean lead",
    "unanimous": "unanimous, part",
    "accuracy": "right, part of judged",
    "judged": "judged by feedback",
    "waiting_from": "waiting, from",
    "waiting_to": "waiting, to",
    "mean_prompt_ms": "prompt, mean ms",
    "mean_queue_ms": "queue, mean ms",
    "success": "succeeded, part",
    "budget_used": "error budget used",
    "budget_used_total": "error budget used so far",
    "worst_code": "most frequent error",
    "error_code": "error",
    "code": "error",
    "what": "what happened",
    "request_id": "request",
    "cause": "longest piece",
    "cause_ms": "longest piece, ms",
    "bubble": "idle, part",
}
_PERCENTILE = re.compile(r"p(\d+)_ms")


def heading(column: str) -> str:
    """`p95_ms` -> `95 % within, ms`; what is not in the table loses its underscores, and its unit a comma."""
    if column in WORDS:
        return WORDS[column]
    if (found := _PERCENTILE.fullmatch(column)) is not None:
        return f"{found[1]} % within, ms"
    words = column.replace("_per_s", "/s")
    for unit in ("ms", "s"):
        words = re.sub(rf"_{unit}$", f", {unit}", words)
    return words.replace("_", " ")

"""A batch as clients read it."""

from __future__ import annotations

from typing import Any

from schemas.requests.files import BatchRecord

TIMES = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


def batch_object(record: BatchRecord) -> dict[str, Any]:
    """All that is told of a batch; output and errors when it has ended."""
    faults = [fault.model_dump() for fault in record.faults]
    return {
        "id": record.id,
        "object": "batch",
        "endpoint": record.endpoint,
        "errors": {"object": "list", "data": faults} if faults else None,
        "input_file_id": record.input_file_id,
        "completion_window": record.completion_window,
        "status": record.status,
        "output_file_id": record.output_file_id,
        "error_file_id": record.error_file_id,
        "created_at": int(record.created_at_s),
        "expires_at": int(record.expires_at_s),
        **{f"{name}_at": _seconds(getattr(record, f"{name}_at_s")) for name in TIMES},
        "request_counts": {
            "total": record.total,
            "completed": record.completed,
            "failed": record.failed,
        },
        "metadata": record.metadata or None,
    }


def _seconds(at_s: float | None) -> int | None:
    return None if at_s is None else int(at_s)

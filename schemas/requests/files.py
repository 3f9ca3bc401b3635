"""Files that clients of the gateway have uploaded, and batches of requests that are asked from one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.errors import PlainText
from schemas.message import Message, Struct
from schemas.subjects import LOCAL_TENANT

FileId = Annotated[str, StringConstraints(pattern=r"^file-[A-Za-z0-9_-]{1,64}$")]
BatchId = Annotated[str, StringConstraints(pattern=r"^batch_[A-Za-z0-9_-]{1,64}$")]

BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
ENDED: frozenset[BatchStatus] = frozenset(("failed", "completed", "expired", "cancelled"))
"""After these nothing happens to a batch any more."""


class FileRecord(Message):
    """What is told of a file; its `size_bytes` bytes are kept in pieces."""

    id: FileId
    tenant: str = LOCAL_TENANT
    filename: Annotated[PlainText, StringConstraints(max_length=255)]
    purpose: Annotated[str, StringConstraints(max_length=32)]
    size_bytes: Annotated[int, Field(ge=0)]
    created_at_s: float


class BatchFault(Struct):
    """What is wrong with a line of a batch's input, counted from 1, or with the whole of it."""

    code: str
    message: PlainText
    line: int | None = None
    param: PlainText | None = None


class BatchRecord(Message):
    """A batch, and how far it has come.

    The requests are the lines of `input_file_id`, each for `endpoint`. What came of a line is a piece of the
    output file or of the error file, under the line's number: that is the journal, so whoever goes on with
    the batch asks only what is missing. It asks in the name of `tenant`, with the API key `key_id` if it was
    begun with one. `runner` is the gateway that works on it; as long as it does, it raises `beat`. Times are
    seconds since the epoch, None for what has not happened.
    """

    id: BatchId
    tenant: str = LOCAL_TENANT
    key_id: str | None = None
    endpoint: str
    input_file_id: FileId
    completion_window: str = "24h"
    metadata: dict[str, str] = Field(default_factory=dict)
    status: BatchStatus = "validating"
    total: int = 0
    completed: int = 0
    failed: int = 0
    faults: tuple[BatchFault, ...] = ()
    output_file_id: FileId | None = None
    error_file_id: FileId | None = None
    created_at_s: float
    expires_at_s: float
    in_progress_at_s: float | None = None
    finalizing_at_s: float | None = None
    completed_at_s: float | None = None
    failed_at_s: float | None = None
    expired_at_s: float | None = None
    cancelling_at_s: float | None = None
    cancelled_at_s: float | None = None
    runner: str | None = None
    beat: int = 0

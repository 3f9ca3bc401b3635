"""One job of a store, and how fast it goes."""

from __future__ import annotations

import time
from collections import deque

from schemas.errors import ErrorBody
from schemas.nodes.model_store import JobState, ManageStore, StoreJob
from services.modelstore.files.joined_hash import JoinedHash

SPEED_WINDOW_S = 5.0


class Job:
    """What was asked, and how far it is. `advance` may be called from any thread. `joined` is there while
    files of a model pass of which nobody knows the hash of all together."""

    def __init__(self, job_id: str, request: ManageStore, instance: str, host: str) -> None:
        self.id = job_id
        self.request = request
        self.total_bytes = 0
        self.state: JobState = "waiting"
        self.models: tuple[str, ...] = ()
        self.sha256: str | None = None
        self.joined: JoinedHash | None = None
        self.problem: ErrorBody | None = None
        self._instance = instance
        self._host = host
        self._done_bytes = 0
        self._samples: deque[tuple[float, int]] = deque(maxlen=256)

    def begin(self) -> None:
        """The work on it begins, from what is there."""
        self.state = "running"
        self.total_bytes = self._done_bytes = 0
        self.joined = None

    def expect(self, more_bytes: int) -> None:
        """So many bytes more belong to the job."""
        self.total_bytes += more_bytes

    def found(self, more_bytes: int) -> None:
        """So many bytes are there already: they count, and say nothing of the speed."""
        self._done_bytes += more_bytes

    @property
    def done_bytes(self) -> int:
        """How many bytes are there."""
        return self._done_bytes

    def go_back(self, done_bytes: int) -> None:
        """No more than these are there after all, or the others are counted again."""
        self._done_bytes = done_bytes

    def advance(self, more_bytes: int) -> None:
        """So many bytes more are done."""
        self._done_bytes += more_bytes
        self._samples.append((time.monotonic(), more_bytes))

    @property
    def bytes_per_s(self) -> float:
        """Over the last seconds; 0 if nothing has come."""
        now_s = time.monotonic()
        recent = [(at_s, more) for at_s, more in tuple(self._samples) if now_s - at_s <= SPEED_WINDOW_S]
        if not recent:
            return 0.0
        return sum(more for _, more in recent) / max(now_s - recent[0][0], 0.05)

    @property
    def over(self) -> bool:
        """Whether nothing more happens."""
        return self.state in ("done", "failed")

    def as_told(self) -> StoreJob:
        """What clients see."""
        return StoreJob(
            id=self.id,
            kind="add" if self.request.action == "add" else "pull",
            model=self.request.name or self.request.path or "",
            instance=self._instance,
            host=self._host,
            state=self.state,
            done_bytes=min(self._done_bytes, self.total_bytes),
            total_bytes=self.total_bytes,
            bytes_per_s=0.0 if self.over else self.bytes_per_s,
            models=self.models,
            problem=self.problem,
            sha256=self.sha256,
        )

"""What a key may use at one gateway: so many requests at a time, so many tokens a minute."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import Overloaded
from schemas.requests.keys import ApiKey

MINUTE_S = 60.0
SOON_S = 1.0


class KeyUse:
    """What a key has in work, and what it used in the last minute."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._tokens: deque[tuple[float, int]] = deque()
        self._sum = 0

    @contextmanager
    def request(self, key: ApiKey) -> Iterator[None]:
        """One request from its beginning to its end. Raises Overloaded if the key is at a limit."""
        self._check(key)
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    def charge(self, tokens: int) -> None:
        """So many tokens were used."""
        self._tokens.append((time.monotonic(), tokens))
        self._sum += tokens

    def _check(self, key: ApiKey) -> None:
        most, tokens = key.limits.requests_in_flight, key.limits.tokens_per_minute
        if most is not None and self._in_flight >= most:
            raise Overloaded(
                f"this key has {self._in_flight} requests in work, and may have {most} at a time",
                retry_after_s=SOON_S,
            )
        now_s = time.monotonic()
        while self._tokens and self._tokens[0][0] <= now_s - MINUTE_S:
            self._sum -= self._tokens.popleft()[1]
        if tokens is not None and self._sum >= tokens:
            raise Overloaded(
                f"this key used {self._sum} tokens within a minute, and may use {tokens}",
                retry_after_s=self._room_after_s(now_s, tokens),
            )

    def _room_after_s(self, now_s: float, most: int) -> float:
        """When enough of what was used is a minute old."""
        left = self._sum
        for at_s, tokens in self._tokens:
            left -= tokens
            if left < most:
                return at_s + MINUTE_S - now_s
        return MINUTE_S

"""The interruption of steps: a step that reads the prompt of who has hung up ends at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Interruption(Generic[T]):
    """Ends the step at hand when nobody wants a prompt any more that the step has a piece of: alone that may
    take seconds. What the step has of others is evaluated again, in a step that is done to its end: those
    who hang up all the time keep nobody else waiting."""

    def __init__(self, interrupt: Callable[[bool], None], is_unwanted: Callable[[T], bool]) -> None:
        """`interrupt` is that of a context; `is_unwanted` says whether nobody waits for a text any more, and
        may be asked on any thread."""
        self._interrupt = interrupt
        self._is_unwanted = is_unwanted
        self._lock = threading.Lock()
        self._reading: Collection[T] = ()
        self._undone: set[T] = set()

    def look(self) -> None:
        """Somebody has hung up: ends the step at hand if that reads such a prompt. Any thread may say so."""
        with self._lock:
            if any(self._is_unwanted(text) for text in self._reading):
                self._interrupt(True)

    @contextmanager
    def step(self, texts: Collection[T], prompts: Collection[T]) -> Iterator[None]:
        """Within this a step of these texts is evaluated; of `prompts` among them it has a piece."""
        self._undone = {text for text in self._undone if not self._is_unwanted(text)}
        with self._lock:
            self._reading = () if self._undone.intersection(texts) else prompts
            if any(self._is_unwanted(text) for text in self._reading):
                self._interrupt(True)
        try:
            yield
        finally:
            with self._lock:
                self._reading = ()
                self._interrupt(False)
            self._undone.difference_update(texts)

    def undone(self, texts: Collection[T]) -> None:
        """The last step was interrupted: what it had of these is evaluated again."""
        self._undone.update(texts)

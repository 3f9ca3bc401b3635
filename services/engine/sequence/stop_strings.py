"""Finds stop strings in a text that arrives in pieces."""

from __future__ import annotations


class StopStrings:
    """Passes text on, except what may still turn out to be the beginning of a stop string."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""

    def feed(self, text: str) -> tuple[str, str | None]:
        """The text that is safe to show now, and the stop string that was met, if any. After one was met
        nothing more may be fed."""
        self._held += text
        found = self._first_stop()
        if found is not None:
            place, stop = found
            shown, self._held = self._held[:place], ""
            return shown, stop
        safe = len(self._held) - self._possible_beginning()
        shown, self._held = self._held[:safe], self._held[safe:]
        return shown, None

    def flush(self) -> str:
        """What was held back, once it is known that nothing more comes."""
        held, self._held = self._held, ""
        return held

    def _first_stop(self) -> tuple[int, str] | None:
        """The earliest stop string, at one place the longest."""
        places = [(self._held.find(stop), -len(stop), stop) for stop in self._stops]
        place, _, stop = min((found for found in places if found[0] >= 0), default=(-1, 0, ""))
        return (place, stop) if place >= 0 else None

    def _possible_beginning(self) -> int:
        """The length of the longest end of the held text that begins a stop string."""
        longest = min(len(self._held), max(map(len, self._stops), default=1) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0

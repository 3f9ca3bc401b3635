"""What a gateway counts, and how Prometheus reads it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from schemas.replies import StatusReply

MOST_NAMES = 200
LONGEST_NAME = 64
OTHERS = "(others)"

Sample = tuple[Mapping[str, str], float]


class Figures:
    """The counts of one gateway since it began. `passed_over` has options that nobody here knows, by name,
    `fields_passed_over` such fields of bodies: the first few names, for clients choose them."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.given_up = 0
        self.cache: Counter[str] = Counter()
        self.cache_bytes = 0
        self.passed_over: Counter[str] = Counter()
        self.fields_passed_over: Counter[str] = Counter()

    def answered(self, dialect: str, status: int, took_s: float) -> None:
        """A request of a dialect was answered with a status, to its end after so many seconds."""
        self.requests[dialect, status] += 1
        self.seconds[dialect] += took_s

    def pass_over(self, name: str) -> None:
        """An option was not looked at."""
        _count(self.passed_over, name)

    def pass_over_field(self, name: str) -> None:
        """A field of a body was not looked at."""
        _count(self.fields_passed_over, name)


def _count(names: Counter[str], name: str) -> None:
    name = name[:LONGEST_NAME]
    known = name in names or len(names) < MOST_NAMES
    names[name if known else OTHERS] += 1


def exposition(figures: Figures, status: StatusReply | None) -> str:
    """All figures in Prometheus's text format, with those of the mesh if it tells them."""
    return "".join(_lines(figures, status))


def _lines(figures: Figures, status: StatusReply | None) -> Iterator[str]:
    requests = [
        ({"dialect": dialect, "status": str(code)}, float(count))
        for (dialect, code), count in figures.requests.items()
    ]
    seconds = [({"dialect": dialect}, value) for dialect, value in figures.seconds.items()]
    options = [({"option": name}, float(count)) for name, count in figures.passed_over.items()]
    yield from _metric("choir_gateway_requests_total", "counter", "HTTP requests answered", requests)
    yield from _metric("choir_gateway_request_seconds_total", "counter", "Time of these, to the end", seconds)
    yield from _metric(
        "choir_gateway_given_up_total", "counter", "Requests whose client hung up", [({}, figures.given_up)]
    )
    cached = [({"use": use}, float(count)) for use, count in figures.cache.items()]
    yield from _metric("choir_gateway_cache_total", "counter", "Answers, by where they came from", cached)
    yield from _metric(
        "choir_gateway_cache_bytes", "gauge", "Results that are kept here", [({}, figures.cache_bytes)]
    )
    fields = [({"field": name}, float(count)) for name, count in figures.fields_passed_over.items()]
    yield from _metric("choir_gateway_options_passed_over_total", "counter", "Unknown options", options)
    yield from _metric(
        "choir_gateway_fields_passed_over_total", "counter", "Unknown fields of bodies", fields
    )
    yield from _metric("choir_up", "gauge", "Whether the mesh answers", [({}, float(status is not None))])
    if status is not None:
        services = [({"service": name}, float(count)) for name, count in status.services.items()]
        yield from _metric("choir_services", "gauge", "Live instances", services)
        yield from _metric(
            "choir_slots", "gauge", "Requests that are worked on at most", [({}, status.slots)]
        )
        yield from _metric("choir_busy", "gauge", "Requests that are worked on", [({}, status.busy)])
        yield from _metric("choir_queued", "gauge", "Commands that wait", [({}, status.queued)])
        waiting = [({"model": name}, float(queue.waiting)) for name, queue in status.queues.items()]
        in_work = [({"model": name}, float(queue.in_work)) for name, queue in status.queues.items()]
        yield from _metric("choir_model_waiting", "gauge", "Tasks that wait for an agent", waiting)
        yield from _metric("choir_model_in_work", "gauge", "Tasks that an agent has", in_work)


def _metric(name: str, kind: str, help_text: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n"
    for labels, value in samples:
        shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{shown}}} {value:g}\n" if shown else f"{name} {value:g}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

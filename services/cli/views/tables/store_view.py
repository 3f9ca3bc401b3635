"""The store of models for people: tables, and lines about one model or one job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.table import Table

from schemas.nodes.model_store import CopyPlace, ModelCopy, StoredModel, StoreEntry, StoreJob, StoreSpace
from services.cli.views.tables.overview_tables import number, table
from services.cli.views.terminal import counted, plain

UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
MINUTE_S, HOUR_S = 60, 3600
LEAST_NAME = 8


def size_text(number: float) -> str:
    """`4.7 GB`."""
    for unit, name in UNITS:
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number:.0f} B"


def models_table(entries: Iterable[StoreEntry]) -> Table:
    """A line for each model."""
    rows = table("model", "architecture", "size", "weights", "files", "copies", "on")
    for entry in entries:
        model = entry.model
        rows.add_row(
            plain(model.name),
            plain(model.architecture),
            size_text(model.size_bytes),
            plain(model.quantisation or "-"),
            str(len(model.files)),
            copies_text(entry),
            hosts_text(entry.copies),
        )
    return rows


def copies_text(entry: StoreEntry) -> str:
    """`2 of 3`: those that are there now, and how many there ought to be."""
    live = sum(copy.whole and copy.live for copy in entry.copies)
    return f"{live} of {entry.model.min_copies}"


def hosts_text(copies: Iterable[ModelCopy]) -> str:
    """The hosts that have a model; those that are away are said to be."""
    hosts = [f"{plain(copy.host)}{'' if copy.live else ' (away)'}" for copy in copies if copy.whole]
    return ", ".join(hosts) or "nobody"


def model_lines(entry: StoreEntry) -> Iterator[str]:
    """Everything about one model."""
    model = entry.model
    facts = [f"{model.layers} layers" if model.layers else "", model.quantisation or ""]
    if model.parameters:
        facts.append(f"{number(model.parameters)} parameters")
    if model.context_tokens:
        facts.append(f"context of {model.context_tokens:,} tokens")
    yield f"{plain(model.name)}: {plain(model.architecture)}, {', '.join(plain(one) for one in facts if one)}"
    origin = model.origin
    at = f" at {plain(origin.revision)}" if origin.revision else ""
    yield f"from {origin.kind.replace('_', ' ')}: {plain(origin.place)}{at}"
    for file in model.files:
        yield f"  {plain(file.name)}  {size_text(file.size_bytes)}  sha256 {file.sha256}"
    if model.joined_sha256:
        yield f"  all files, one after another: sha256 {model.joined_sha256}"
    yield (f"copies: {copies_text(entry)}, at most {model.max_copies}; on {hosts_text(entry.copies)}")
    yield from missing_lines(entry)
    if model.licence:
        yield f"licence: {plain(model.licence)}"
    if model.licence_text:
        yield plain(model.licence_text)


def missing_lines(entry: StoreEntry) -> Iterator[str]:
    """Why there are fewer copies than there ought to be, a line for each host that could make one; nothing if
    there are enough."""
    if not entry.missing:
        return
    what = "1 copy is missing" if entry.missing == 1 else f"{entry.missing} copies are missing"
    yield f"{plain(entry.model.name)}: {what}"
    if not any(copy.whole and copy.live for copy in entry.copies):
        yield "  no host that is there now holds all of it"
    for place in entry.places:
        yield f"  {plain(place.host)} {place_text(place, entry.model)}"
    if not entry.places:
        yield "  there is no other host with a store"


def place_text(place: CopyPlace, model: StoredModel) -> str:
    """What speaks against a copy at a host."""
    has, takes = size_text(place.has_bytes or 0), size_text(model.size_bytes)
    match place.lacks:
        case "disk":
            return f"makes none: its store has room for {has}, and the model takes {takes}"
        case "memory":
            return f"is a last choice: agents there have {has} of memory, and the weights take {takes}"
        case "server":
            return "is a last choice: no agent there loads the model, and no stage offers it"
        case None:
            return "makes one as soon as it is its turn"


def jobs_table(jobs: Iterable[StoreJob]) -> Table:
    """A line for each job."""
    rows = table("job", "what", "model", "host", "state", "so far", "")
    for job in jobs:
        problem = "" if job.problem is None else plain(job.problem.message)
        rows.add_row(
            job.id, job.kind, plain(job.model), plain(job.host), job.state,
            f"{size_text(job.done_bytes)} of {size_text(job.total_bytes)}", problem or speed_text(job),
        )  # fmt: skip
    return rows


def spaces_table(spaces: Iterable[StoreSpace]) -> Table:
    """A line for each store."""
    rows = table("store", "host", "pulled", "room")
    for space in spaces:
        rows.add_row(
            plain(space.instance), plain(space.host), size_text(space.used_bytes), size_text(space.free_bytes)
        )
    return rows


def speed_text(job: StoreJob) -> str:
    """`112.0 MB/s, 40 s left`."""
    if not job.bytes_per_s:
        return ""
    return f"{size_text(job.bytes_per_s)}/s, {_time_text(job.left_s or 0.0)} left"


def _time_text(seconds: float) -> str:
    if seconds < 2 * MINUTE_S:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE_S:.0f} min" if seconds < 2 * HOUR_S else f"{seconds / HOUR_S:.1f} h"


def progress_line(job: StoreJob, width: int) -> str:
    """How far a job is, how fast it goes and how long it takes still, in one line of a terminal; a name that
    is too long for that is cut in its middle."""
    share = 100 * job.done_bytes / job.total_bytes if job.total_bytes else 0.0
    so_far = f"{size_text(job.done_bytes)} of {size_text(job.total_bytes)} ({share:.0f} %)"
    if job.state == "waiting":
        so_far = "waits for others to end"
    elif not job.total_bytes:
        so_far = "begins"
    else:
        so_far = f"{so_far}, {speed_text(job) or 'nothing comes now'}"
    room = max(LEAST_NAME, width - len(f"{job.kind} : {so_far}"))
    return f"{job.kind} {_cut(plain(job.model), room)}: {so_far}"


def _cut(name: str, room: int) -> str:
    if len(name) <= room:
        return name
    tail = (room - 1) // 2
    return f"{name[: room - 1 - tail]}…{name[len(name) - tail :]}"


def ending_line(job: StoreJob) -> str:
    """What has become of a job, or that it goes on without whoever has asked."""
    if job.state != "done":
        return f"{job.id}: {job.kind} goes on at {plain(job.host)}; `choir model jobs` shows how far it is"
    names = ", ".join(map(plain, job.models)) or plain(job.model)
    done = "added" if job.kind == "add" else "pulled"
    return f"{done} {names}: {counted(len(job.models) or 1, 'model')}, {size_text(job.total_bytes)}"

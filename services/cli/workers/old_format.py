"""Reads the `workers.json` of the literature reviewers' tool: a list of workers, or an object that has one.

Each has `type`, `host`, `port`, `model`, and may have `id` and `max_concurrent_requests`. Pure but for
reading the file.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.errors import InvalidRequest
from schemas.nodes.workers import DEFAULT_PORTS, WORKER_TYPES, Worker, WorkerType
from services.chassis.plain_words import first_fault

LOOPBACK = ("localhost", "127.0.0.1", "::1")
RENAMED = {"max_concurrent_requests": "slots"}
KNOWN = frozenset(Worker.model_fields) - {"schema_version"}


def default_id(kind: str, host: str, port: int) -> str:
    """An id for a worker that was given none: `lm_studio-mac-07.local-1234`."""
    plain = "".join(char if char.isalnum() or char in "._-" else "-" for char in f"{kind}-{host}-{port}")
    return plain[:64]


def build_worker(fields: dict[str, Any], where: str) -> Worker:
    """A worker from its fields; InvalidRequest names `where` and the field that is wrong.

    The port defaults to the usual one of the type; `openai` without a port speaks https. A server on this
    host's loopback is for this host's agents only: the address means another machine everywhere else.
    """
    fields = {RENAMED.get(name, name): value for name, value in fields.items() if value is not None}
    fields = {name: value for name, value in fields.items() if name in KNOWN}
    kind = fields.get("type")
    if kind is not None and kind not in WORKER_TYPES:
        near = get_close_matches(str(kind), WORKER_TYPES, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise InvalidRequest(
            f"{where}type: {kind!r} is none of {', '.join(WORKER_TYPES)}{meant}", field="type"
        )
    if kind is not None:
        known: WorkerType = kind
        if known == "openai" and "port" not in fields:
            fields["tls"] = True  # its usual port is that of https
        fields.setdefault("port", DEFAULT_PORTS[known])
    if "host" in fields and "port" in fields:
        made = default_id(str(fields.get("type")), str(fields["host"]), fields["port"])
        fields.setdefault("id", made)
    if fields.get("host") in LOOPBACK:
        fields.setdefault("only_on", socket.gethostname())
    try:
        return Worker.model_validate(fields)
    except ValidationError as error:
        field, what = first_fault(error, whole="worker")
        raise InvalidRequest(f"{where}{field}: {what}", field=field) from error


def read_workers(path: Path) -> Iterator[Worker | InvalidRequest]:
    """Each entry as a worker, or what is wrong with it. InvalidRequest if the file cannot be read."""
    seen: set[str] = set()
    for number, entry in enumerate(_entries(path), start=1):
        where = f"{path.name}: worker {number}: "
        if not isinstance(entry, dict):
            yield InvalidRequest(f"{where}it is no object", field="worker")
            continue
        try:
            worker = build_worker(entry, where)
        except InvalidRequest as error:
            yield error
            continue
        if worker.id in seen:
            yield InvalidRequest(f"{where}id: {worker.id!r} is there twice", field="id")
            continue
        seen.add(worker.id)
        yield worker


def _entries(path: Path) -> list[Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidRequest(
            f"{path}: {(error.strerror or 'cannot be read').lower()}", field="file"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path}: it is no text", field="file") from error
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            f"{path}: line {error.lineno}, column {error.colno}: {error.msg}", field="file"
        ) from error
    entries = document.get("workers") if isinstance(document, dict) else document
    if not isinstance(entries, list) or not entries:
        raise InvalidRequest(f"{path}: it has no list of workers", field="file")
    return entries

"""Rows of a benchmark's file: Parquet, JSON lines or CSV, here or at a URL, read with DuckDB.

A folder stands for all such files in it, in the order of their names.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from infra.demo_models.checksums import sha256_of
from schemas.errors import InvalidRequest

Row = dict[str, Any]

READERS = {
    ".parquet": "read_parquet(?)",
    ".jsonl": "read_json(?, format = 'newline_delimited')",
    ".ndjson": "read_json(?, format = 'newline_delimited')",
    ".json": "read_json(?)",
    ".csv": "read_csv(?, header = false, all_varchar = true)",
}
"""DuckDB's function for each ending of a file; `.gz` after it is unpacked."""

FILE = "(file)"
"""The column with the name of a CSV file that has no header: it may say what its columns do not."""
QUESTION_COLUMN = "question"
DOWNLOAD_TIMEOUT_S = 60.0
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """What was read: where it came from, its digest (of a folder that of all files' names and digests), and
    its rows."""

    location: str
    sha256: str
    rows: tuple[Row, ...]

    def described(self) -> dict[str, Any]:
        """For config.json."""
        return {"location": self.location, "sha256": self.sha256, "rows": len(self.rows)}


def read(location: str) -> Source:
    """The rows of a file or URL. InvalidRequest says what is wrong with it: nothing stands in for it."""
    path = _downloaded(location) if _is_url(location) else Path(location)
    if path.is_dir():
        return _folder(path, location)
    if not path.is_file():
        raise InvalidRequest(f"data: there is no file {location}", field="data")
    rows = tuple(_rows(path, location))
    if not rows:
        raise InvalidRequest(f"data: {location} has no rows", field="data")
    return Source(location=location, sha256=sha256_of(path), rows=rows)


def _folder(folder: Path, location: str) -> Source:
    files = sorted(path for path in folder.iterdir() if path.is_file() and _ending(path.name) in READERS)
    if not files:
        raise InvalidRequest(
            f"data: the folder {location} has no file that ends in one of {', '.join(READERS)}", field="data"
        )
    sources = {path.name: read(str(path)) for path in files}
    digest = hashlib.sha256("".join(f"{name} {each.sha256}\n" for name, each in sources.items()).encode())
    rows = tuple(row for each in sources.values() for row in each.rows)
    return Source(location=location, sha256=digest.hexdigest(), rows=rows)


def _rows(path: Path, location: str) -> list[Row]:
    reader = READERS.get(_ending(location))
    if reader is None:
        raise InvalidRequest(
            f"data: {location} has to end in one of {', '.join(READERS)} (or these with .gz)", field="data"
        )
    try:
        with duckdb.connect() as connection:
            found = connection.execute(f"SELECT * FROM {reader}", [str(path)])
            names = tuple(column[0] for column in found.description or ())
            table = found.fetchall()
    except duckdb.Error as error:
        reason = str(error).partition("\n")[0]
        raise InvalidRequest(f"data: {location} cannot be read: {reason}", field="data") from error
    if _ending(location) == ".csv" and table:
        if _is_header(table[0]):
            names, table = table[0], table[1:]
        else:
            stem = Path(location.removesuffix(".gz")).stem
            names, table = (*names, FILE), [(*values, stem) for values in table]
    return [dict(zip(names, values, strict=True)) for values in table]


def _is_header(first: tuple[Any, ...]) -> bool:
    """Whether a CSV file's first line names its columns. DuckDB tells by types, and here all are texts."""
    return any(str(value).strip().casefold() == QUESTION_COLUMN for value in first)


def _ending(location: str) -> str:
    name = urllib.parse.urlsplit(location).path if _is_url(location) else location
    return Path(name.removesuffix(".gz")).suffix.lower()


def _is_url(location: str) -> bool:
    return urllib.parse.urlsplit(location).scheme in ("http", "https")


def _downloaded(url: str) -> Path:
    """The file behind a URL, kept in the cache folder; what is there is not fetched again."""
    name = Path(urllib.parse.urlsplit(url).path).name
    target = cache_folder() / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = tempfile.NamedTemporaryFile(dir=target.parent, delete=False)  # noqa: SIM115 (it is renamed)
    try:
        with part, urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as reply:
            while piece := reply.read(_PIECE_BYTES):
                part.write(piece)
        Path(part.name).rename(target)
    except (OSError, ValueError) as error:
        Path(part.name).unlink(missing_ok=True)
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise InvalidRequest(
            f"data: {url} cannot be fetched: {reason}; name a file that is here with --data", field="data"
        ) from error
    return target


def cache_folder() -> Path:
    """Where files from URLs are kept: `$XDG_CACHE_HOME/choir/benchmarks`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "choir" / "benchmarks"

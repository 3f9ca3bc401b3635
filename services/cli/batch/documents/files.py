"""The documents of a batch: which files are read, and the text in them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import DocumentUnreadable, InvalidRequest

TEXT_SUFFIXES = (".txt", ".md")
PDF_SUFFIX = ".pdf"
DEFAULT_GLOBS = tuple(f"*{suffix}" for suffix in (*TEXT_SUFFIXES, PDF_SUFFIX))
MAX_BYTES = 50 * 1024 * 1024
PDF_PATIENCE_S = 120.0

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_CONTROLS = frozenset(chr(code) for code in (*range(0x20), 0x7F)) - frozenset("\t\n\r\f\v")


@dataclass(frozen=True, slots=True)
class Document:
    """A file, and the name that it has in the results: its path below the input."""

    path: Path
    name: str


def find_documents(
    source: Path, globs: Sequence[str] = DEFAULT_GLOBS, recursive: bool = True
) -> list[Document]:
    """The files of a directory that match one of `globs`, by name; or the one file that `source` is.

    Hidden files and folders are left out. InvalidRequest if there is no such directory, or nothing in it.
    """
    if source.is_file():
        return [Document(source, source.name)]
    if not source.is_dir():
        raise InvalidRequest(f"{source} is neither a directory nor a file", field="input")
    try:
        found = {path for glob in globs for path in (source.rglob if recursive else source.glob)(glob)}
    except (ValueError, NotImplementedError) as error:
        raise InvalidRequest(f"not a pattern of file names: {error}", field="glob") from error
    named = {path.relative_to(source): path for path in found if path.is_file()}
    visible = sorted(name for name in named if not any(part.startswith(".") for part in name.parts))
    if not visible:
        raise InvalidRequest(f"no file in {source} matches {', '.join(globs)}", field="input")
    return [Document(named[name], name.as_posix()) for name in visible]


async def read_document(path: Path) -> str:
    """The text of a .txt, .md or .pdf file; DocumentUnreadable says why there is none."""
    suffix = path.suffix.lower()
    if suffix not in (*TEXT_SUFFIXES, PDF_SUFFIX):
        raise DocumentUnreadable(f"{suffix or 'a file without suffix'}: only .txt, .md and .pdf are read")
    await asyncio.to_thread(_check_size, path)
    text = await _pdf_text(path) if suffix == PDF_SUFFIX else await asyncio.to_thread(_file_text, path)
    if not text.strip():
        why = "no text in it: are its pages images?" if suffix == PDF_SUFFIX else "the file is empty"
        raise DocumentUnreadable(why)
    return text


def _check_size(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DocumentUnreadable((error.strerror or str(error)).lower()) from error
    if size > MAX_BYTES:
        raise DocumentUnreadable(f"{size / 1e6:.0f} MB: files of up to {MAX_BYTES / 1e6:.0f} MB are read")


def _file_text(path: Path) -> str:
    try:
        return decoded(path.read_bytes())
    except OSError as error:
        raise DocumentUnreadable((error.strerror or str(error)).lower()) from error


def decoded(octets: bytes) -> str:
    """UTF-8, UTF-16 with its mark, or else Windows-1252 as text; DocumentUnreadable for what is none."""
    for encoding in ("utf-16",) if octets[:2] in UTF16_MARKS else ("utf-8-sig", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            text = octets.decode(encoding)
            if not _CONTROLS & set(text):
                return text
    raise DocumentUnreadable("the file is binary, not text")


async def _pdf_text(path: Path) -> str:
    """Read in a process of its own: a damaged file may take for ever, or all memory."""
    reader = await asyncio.create_subprocess_exec(
        sys.executable,
        # -P: a folder of documents may have a folder `services`, and that is not ours.
        *("-P", "-m", "services.cli.batch.documents.pdf_text", str(path)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us
    )
    try:
        async with asyncio.timeout(PDF_PATIENCE_S):
            text, complaint = await reader.communicate()
    except TimeoutError as error:
        raise DocumentUnreadable(f"its text could not be read within {PDF_PATIENCE_S:g} s") from error
    finally:
        if reader.returncode is None:
            reader.kill()
            await reader.wait()
    if reader.returncode:
        said = complaint.decode(errors="replace").strip().splitlines()
        raise DocumentUnreadable(said[-1] if said else f"its reader died (code {reader.returncode})")
    return text.decode()

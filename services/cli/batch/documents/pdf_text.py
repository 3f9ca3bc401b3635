"""The text of a PDF file, on standard output: `python -m services.cli.batch.documents.pdf_text FILE`.

A process of its own, with a limit on memory: PDF files come from anywhere. It exits with 1, and one line
on standard error, where the text cannot be read.
"""

from __future__ import annotations

import logging
import resource
import sys
from pathlib import Path

import pypdf

MEMORY_BYTES = 2 * 1024**3


def pdf_text(path: Path) -> str:
    """The text of all pages, with an empty line between them. ValueError for one that is locked."""
    reader = pypdf.PdfReader(path)
    if reader.is_encrypted and not reader.decrypt(""):
        raise ValueError("it is encrypted: save it without a password first")
    return "\n\n".join(page.extract_text() for page in reader.pages)


def main() -> int:
    """Reads the file that the command line names."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        text = pdf_text(Path(sys.argv[1]))
    except pypdf.errors.DependencyError:
        return _complain("it is encrypted: save it without a password first")
    except ValueError as error:
        return _complain(str(error))
    except Exception as error:  # noqa: BLE001  # a damaged file leads pypdf into errors of any kind
        return _complain(f"not a PDF file that can be read ({type(error).__name__}: {error})")
    sys.stdout.buffer.write(text.encode(errors="replace"))
    return 0


def _complain(reason: str) -> int:
    print(" ".join(reason.split()), file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    raise SystemExit(main())

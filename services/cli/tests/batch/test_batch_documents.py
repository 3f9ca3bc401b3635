"""Which files a batch reads, and what it says of those that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pypdf
import pytest
from fpdf import FPDF

from schemas.errors import DocumentUnreadable, InvalidRequest
from services.cli.batch.documents import files as documents
from services.cli.batch.documents.files import decoded, find_documents, read_document


def write_pdf(path: Path, *pages: str, password: str | None = None) -> Path:
    """A PDF file with these pages."""
    pdf = FPDF()
    pdf.set_font("Helvetica", size=12)
    for page in pages:
        pdf.add_page()
        if page:
            pdf.multi_cell(0, 8, page)
    pdf.output(str(path))
    if password is not None:
        locked = pypdf.PdfWriter(clone_from=path)
        locked.encrypt(password, algorithm="RC4-128")
        locked.write(path)
    return path


def test_documents_are_found_below_a_directory_by_name(tmp_path: Path) -> None:
    for name in ("b.md", "a.txt", "sub/c.pdf", "sub/.hidden.txt", ".git/d.txt", "e.docx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [found.name for found in find_documents(tmp_path)] == ["a.txt", "b.md", "sub/c.pdf"]
    assert [found.name for found in find_documents(tmp_path, recursive=False)] == ["a.txt", "b.md"]
    assert [found.name for found in find_documents(tmp_path, ("*.md", "b*"))] == ["b.md"]
    assert [found.name for found in find_documents(tmp_path / "a.txt")] == ["a.txt"]


@pytest.mark.parametrize("pattern", ["*.rtf", "/etc/*", ""])
def test_nothing_to_read_is_said_before_anything_is_asked(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InvalidRequest) as refused:
        find_documents(tmp_path, (pattern,))
    assert refused.value.field in ("input", "glob")


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="nowhere") as refused:
        find_documents(tmp_path / "nowhere")
    assert refused.value.field == "input"


@pytest.mark.parametrize(
    "octets",
    [
        "Größe 5 µm".encode(),
        b"\xef\xbb\xbf" + "Größe 5 µm".encode(),
        "Größe 5 µm".encode("utf-16"),
        "Größe 5 µm".encode("cp1252"),
    ],
)
def test_text_is_read_in_the_encodings_that_papers_come_in(octets: bytes) -> None:
    assert decoded(octets) == "Größe 5 µm"


@pytest.mark.parametrize("octets", [b"MZ\x00\x01", b"\x89PNG\r\n\x1a\n\x00", b"\xff\xfeA", b"a\x1b[2Jb"])
def test_what_is_no_text_is_not_read_as_text(octets: bytes) -> None:
    with pytest.raises(DocumentUnreadable, match="binary"):
        decoded(octets)


async def test_a_pdf_is_read_page_by_page(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", "Voices in a choir.", "They answer as one.")
    assert await read_document(path) == "Voices in a choir.\n\nThey answer as one."


async def test_nothing_in_a_folder_of_documents_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads papers that came from elsewhere runs no program that came with them."""
    trap = 'from pathlib import Path\nPath(__file__).with_name("ran").touch()\n'
    packages = ("services", "services/cli", "services/cli/batch", "services/cli/batch/documents")
    program_of_pdfs = "services/cli/batch/documents/pdf_text"
    for module in ("pypdf", *(f"{package}/__init__" for package in packages), program_of_pdfs):
        program = tmp_path / f"{module}.py"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(trap)
    monkeypatch.chdir(tmp_path)
    assert await read_document(write_pdf(tmp_path / "a.pdf", "Text.")) == "Text."
    assert not list(tmp_path.rglob("ran"))


async def test_files_that_cannot_be_read_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_BYTES", 100_000)
    cases = {
        "empty.txt": (b" \n", "empty"),
        "binary.txt": (b"\x00\x01\x02", "binary"),
        "huge.md": (b"x" * 200_000, "MB"),
        "damaged.pdf": (b"%PDF-1.7\nnothing more", "not a PDF file that can be read"),
        "page.html": (b"<p>", "only .txt, .md and .pdf"),
    }
    for name, (octets, said) in cases.items():
        (tmp_path / name).write_bytes(octets)
        with pytest.raises(DocumentUnreadable, match=said):
            await read_document(tmp_path / name)
    with pytest.raises(DocumentUnreadable, match="no such file"):
        await read_document(tmp_path / "gone.txt")
    with pytest.raises(DocumentUnreadable, match="images"):
        await read_document(write_pdf(tmp_path / "scan.pdf", ""))
    with pytest.raises(DocumentUnreadable, match="encrypted"):
        await read_document(write_pdf(tmp_path / "locked.pdf", "Secret.", password="x"))


async def test_a_file_that_takes_for_ever_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "PDF_PATIENCE_S", 0.01)
    with pytest.raises(DocumentUnreadable, match=r"within 0\.01 s"):
        await read_document(write_pdf(tmp_path / "a.pdf", "Text."))

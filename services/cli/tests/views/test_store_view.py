"""The store of models on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from schemas.nodes.model_store import CopyPlace, ModelCopy, ModelFile, Origin, StoredModel, StoreEntry
from services.cli.views.tables.store_view import missing_lines, model_lines

GB = 10**9
MODEL = StoredModel(
    name="llama3.2:3b",
    files=(ModelFile(name="llama-3.2-3b.gguf", size_bytes=8 * GB, sha256="ab" * 32),),
    architecture="llama",
    licence="llama3.2",
    licence_text="LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\n\nYou may [red]not[/red] \x1b[31mpaint\n",
    origin=Origin(kind="local", place="/srv/llama-3.2-3b.gguf"),
    added_at_s=0.0,
    min_copies=2,
)
ATTIC = ModelCopy(instance="attic-store", host="attic", whole=True, live=True)


def shown(lines: list[str]) -> str:
    """On a terminal of 80 columns."""
    out = Console(width=80, markup=False, highlight=False, file=io.StringIO())
    for line in lines:
        out.print(line)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_a_model_of_the_store_says_why_a_copy_is_missing() -> None:
    places = (
        CopyPlace(instance="barn-store", host="barn"),
        CopyPlace(instance="cellar-store", host="cellar", lacks="memory", has_bytes=4 * GB),
        CopyPlace(instance="dock-store", host="dock", lacks="server"),
        CopyPlace(instance="loft-store", host="loft", lacks="disk", has_bytes=1 * GB),
    )
    entry = StoreEntry(model=MODEL, copies=(ATTIC,), places=places)
    told = [
        "llama3.2:3b: 1 copy is missing",
        "  barn makes one as soon as it is its turn",
        "  cellar is a last choice: agents there have 4.0 GB of memory, and the weights take 8.0 GB",
        "  dock is a last choice: no agent there loads the model, and no stage offers it",
        "  loft makes none: its store has room for 1.0 GB, and the model takes 8.0 GB",
    ]
    assert list(missing_lines(entry)) == told
    assert set(told) < set(model_lines(entry))
    away = StoreEntry(model=MODEL, copies=(ATTIC.model_copy(update={"live": False}),))
    assert list(missing_lines(away)) == [
        "llama3.2:3b: 2 copies are missing",
        "  no host that is there now holds all of it",
        "  there is no other host with a store",
    ]
    enough = MODEL.model_copy(update={"min_copies": 1})
    assert list(missing_lines(StoreEntry(model=enough, copies=(ATTIC,)))) == []


def test_the_text_of_a_licence_is_shown_as_it_stands() -> None:
    text = shown(list(model_lines(StoreEntry(model=MODEL, copies=(ATTIC,)))))
    assert "licence: llama3.2" in text
    lines = text.splitlines()
    begins = lines.index("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT")
    assert lines[begins + 1] == "" and lines[begins + 2].startswith("You may [red]not[/red]")
    assert "\x1b" not in text

"""Ensembles with a name, as a table: whom each asks, and how it decides."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from schemas.ensembles.kept import EnsembleWord, NamedEnsemble
from schemas.ensembles.named import Ensemble
from services.cli.views.tables.overview_tables import table
from services.cli.views.terminal import plain


def ensembles_table(ensembles: Iterable[Ensemble]) -> Table:
    """A line for each that can be asked."""
    rows = table("ensemble", "members", "strategies", "quorum", right=("quorum",), named=True)
    for one in ensembles:
        rows.add_row(*_cells(one))
    return rows


def words_table(entries: Iterable[NamedEnsemble]) -> Table:
    """A line for each thing that is said of a name, the one that counts first."""
    rows = table(
        "ensemble", "members", "strategies", "quorum", "said by", "counts", right=("quorum",), named=True
    )
    for entry in entries:
        for place, word in enumerate(entry.words):
            rows.add_row(*_cells(word.ensemble), _speakers(word), "no" if place else "yes")
    return rows


def _cells(one: Ensemble) -> tuple[str, str, str, str]:
    members = ", ".join(map(plain, one.members)) or "all"
    return plain(one.name), members, ", ".join(one.strategies), "-" if one.quorum is None else str(one.quorum)


def _speakers(word: EnsembleWord) -> str:
    return ", ".join((*word.hosts, *(("operators",) if word.operators else ())))

"""The checks of IFEval: programs for 25 kinds of instructions, which are those of lm-evaluation-harness.

They come with `lm_eval`, which is no part of Choir: it brings fifty packages along. What is not there is said
before anybody is asked.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

from analysis.evaluation.benchmarks.question import Instruction
from schemas.errors import InvalidRequest

INSTALL = "uv pip install 'lm_eval[ifeval]>=0.4.9,<0.5'"
DOWNLOAD = "python -m nltk.downloader punkt_tab"
NEEDS_NLTK_DATA = frozenset({"length_constraints:number_sentences", "change_case:capital_word_frequency"})
"""Kinds that take a text to pieces with data which nltk does not come with."""
_RANK = "LOCAL_RANK"


class Checked(NamedTuple):
    """Whether a text follows each of its prompt's instructions: as it stands, and with what may be taken away
    from it (its first line, its last, asterisks) taken away."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


def check_able(asked: Iterable[Sequence[Instruction]]) -> None:
    """InvalidRequest, with what to type, unless each of these can be checked here."""
    kinds = {each.kind for instructions in asked for each in instructions}
    known = _harness().instructions_registry.INSTRUCTION_DICT
    if unknown := sorted(kinds.difference(known)):
        raise InvalidRequest(
            f"data: nothing checks {', '.join(unknown)}; there are {', '.join(sorted(known))}", field="data"
        )
    if (needing := sorted(kinds & NEEDS_NLTK_DATA)) and not _has_nltk_data():
        raise InvalidRequest(
            f"benchmarks: to check {', '.join(needing)} nltk needs its data punkt_tab, which is not here; "
            f"fetch it with: {DOWNLOAD}",
            field="benchmarks",
        )


def check(prompt: str, instructions: Sequence[Instruction], text: str) -> Checked:
    """A text, checked; one that is empty follows nothing."""
    document = {
        "key": 0,
        "prompt": prompt,
        "instruction_id_list": [each.kind for each in instructions],
        "kwargs": [each.settings for each in instructions],
    }
    found = _harness().process_results(document, [text])
    return Checked(tuple(found["inst_level_strict_acc"]), tuple(found["inst_level_loose_acc"]))


def version() -> str:
    """Of lm_eval, whose checks these are."""
    return str(importlib.import_module("lm_eval").__version__)


@cache
def _harness() -> Any:
    """The module of checks, with a detector of languages that says the same of the same text."""
    try:
        with _nothing_fetched():
            module = importlib.import_module("lm_eval.tasks.ifeval.utils")
        detector: Any = importlib.import_module("langdetect")
    except ImportError as error:
        raise InvalidRequest(
            f"benchmarks: ifeval is checked by lm_eval, which cannot be used here ({error}); "
            f"install it with: {INSTALL}",
            field="benchmarks",
        ) from error
    detector.DetectorFactory.seed = 0
    return module


@contextmanager
def _nothing_fetched() -> Iterator[None]:
    """lm_eval fetches nltk's data when it is imported, but in the first process of several alone."""
    before = os.environ.get(_RANK)
    os.environ[_RANK] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_RANK]
        else:
            os.environ[_RANK] = before


def _has_nltk_data() -> bool:
    data: Any = importlib.import_module("nltk").data
    try:
        data.find("tokenizers/punkt_tab")
    except LookupError:
        return False
    return True

"""The options of a matrix: which pairs, which prompts, how often, and how texts are generated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from schemas.commands import DEFAULT_SUMMARY_PROMPT, SummaryPrompt
from schemas.errors import InvalidRequest
from schemas.message import Name, Struct
from schemas.subjects import Priority
from services.chassis.plain_words import first_fault

Prompt = Annotated[str, Field(min_length=1, pattern=r"\S")]


class MatrixOptions(Struct):
    """The options of `choir matrix`; repetition r of a cell is sampled with `seed` + r - 1."""

    generators: Annotated[tuple[Name, ...], Field(min_length=1)]
    summarizers: Annotated[tuple[Name, ...], Field(min_length=1)]
    prompts: Annotated[tuple[Prompt, ...], Field(min_length=1)]
    repetitions: Annotated[int, Field(ge=1, le=10_000)] = 1
    summary_prompt: SummaryPrompt = DEFAULT_SUMMARY_PROMPT
    max_tokens: Annotated[int, Field(ge=1, le=32_768)] = 256
    temperature: Annotated[float, Field(ge=0.0, le=5.0)] = 0.0
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    timeout_s: Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)] = 600.0
    priority: Priority = "interactive"

    @field_validator("generators", "summarizers", "prompts")
    @classmethod
    def _named_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is named twice")
        return names


def matrix_options(fields: dict[str, Any]) -> MatrixOptions:
    """The options; InvalidRequest names the one that is wrong."""
    try:
        return MatrixOptions.model_validate(fields)
    except ValidationError as error:
        field, what = first_fault(error, whole="options")
        raise InvalidRequest(f"{field}: {what}", field=field) from error


def read_prompts(file: Path | None, texts: Sequence[str]) -> tuple[str, ...]:
    """The prompts of a file, one a line, empty lines passed over, and after them `texts`.

    InvalidRequest if the file cannot be read or there is no prompt at all.
    """
    lines: list[str] = []
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise InvalidRequest(f"prompts: {file}: {error.strerror}", field="prompts") from error
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"prompts: {file} is not text in UTF-8", field="prompts") from error
    prompts = (*(line.strip() for line in lines if line.strip()), *texts)
    if not prompts:
        raise InvalidRequest("prompts: there is none; give --prompts FILE or -p TEXT", field="prompts")
    return prompts

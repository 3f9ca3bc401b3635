"""The wire format of every message, as the golden files hold it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from schemas.errors import ErrorBody
from schemas.events import ANY_EVENT, Event
from schemas.golden.__main__ import EVERYTHING, FOLDER, differences, write
from schemas.golden.samples import SAMPLES
from schemas.message import Message, Struct

WITHOUT_SAMPLE: set[type[BaseModel]] = {Event}
"""Classes that are only ever sent as one of their subclasses."""

README = FOLDER.parent / "README.md"

samples = pytest.mark.parametrize("name", SAMPLES)


def subclasses(of: type[Struct]) -> Iterator[type[Struct]]:
    for child in of.__subclasses__():
        if child.__module__.startswith("schemas."):
            yield child
            yield from subclasses(child)


def by_name(parts: Iterable[type[BaseModel]]) -> list[type[BaseModel]]:
    return sorted(parts, key=lambda part: part.__name__)


MESSAGES = by_name(set(subclasses(Message)) - WITHOUT_SAMPLE)
PARTS = by_name(set(subclasses(Struct)) - {Message} | {ErrorBody})


def parts_of(value: object) -> Iterator[BaseModel]:
    """A message and all that is in it."""
    if isinstance(value, BaseModel):
        yield value
        for field in type(value).model_fields:
            yield from parts_of(getattr(value, field))
    elif isinstance(value, tuple):
        for item in value:
            yield from parts_of(item)


def test_the_wire_format_is_that_of_the_golden_files() -> None:
    assert differences(FOLDER, EVERYTHING) == [], (
        "the wire format has changed: if that is meant, write the golden files with "
        "`uv run python -m schemas.golden --write` and look at the difference"
    )


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_has_a_sample(message: type[BaseModel]) -> None:
    assert message in {type(sample) for sample in SAMPLES.values()}


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_is_in_the_table_of_the_readme(message: type[BaseModel]) -> None:
    assert f"`{message.__name__}`" in README.read_text(encoding="utf-8")


@pytest.mark.parametrize("part", by_name(set(PARTS) - WITHOUT_SAMPLE))
def test_every_field_is_filled_in_some_sample(part: type[BaseModel]) -> None:
    filled = {
        field
        for sample in SAMPLES.values()
        for found in parts_of(sample)
        if type(found) is part
        for field in part.model_fields
        if getattr(found, field) is not None
    }
    common = set(Event.model_fields) if issubclass(part, Event) else set()
    assert filled - common == set(part.model_fields) - common


def test_every_field_that_events_share_is_filled_in_some_event() -> None:
    events = [sample for sample in SAMPLES.values() if isinstance(sample, Event)]
    for field in Event.model_fields:
        assert any(getattr(event, field) is not None for event in events)


@samples
def test_a_message_comes_back_from_the_wire(name: str) -> None:
    message = SAMPLES[name]
    assert type(message).model_validate_json(message.to_bytes()) == message


@samples
def test_a_message_comes_back_from_its_golden_file(name: str) -> None:
    message = SAMPLES[name]
    assert type(message).model_validate_json((FOLDER / f"{name}.json").read_bytes()) == message


@samples
def test_a_message_with_an_unknown_field_is_refused(name: str) -> None:
    message = SAMPLES[name]
    with pytest.raises(ValidationError, match="unheard_of"):
        type(message).model_validate({**message.model_dump(exclude_none=True), "unheard_of": 1})


@samples
@pytest.mark.parametrize("version", [0, 2, "1.5", None])
def test_a_message_of_another_schema_version_is_refused(name: str, version: object) -> None:
    message = SAMPLES[name]
    with pytest.raises(ValidationError, match="schema_version"):
        type(message).model_validate({**message.model_dump(), "schema_version": version})


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_frozen_and_closed(part: type[BaseModel]) -> None:
    assert part.model_config.get("frozen") is True
    assert part.model_config.get("extra") == "forbid"


def test_a_message_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SAMPLES["accepted"].request_id = "another"  # type: ignore[attr-defined]


def test_every_event_is_told_by_its_kind() -> None:
    events = [sample for sample in SAMPLES.values() if isinstance(sample, Event)]
    assert {type(event) for event in events} == {part for part in MESSAGES if issubclass(part, Event)}
    for event in events:
        assert ANY_EVENT.validate_json(event.to_bytes()) == event


def test_no_event_has_room_for_a_prompt_or_an_answer() -> None:
    for part in MESSAGES:
        if issubclass(part, Event):
            assert not {"prompt", "messages", "text", "answer", "answers"} & set(part.model_fields)


def test_a_changed_a_missing_and_a_surplus_file_are_each_named_and_written_away(tmp_path: Path) -> None:
    write(tmp_path, EVERYTHING)
    assert differences(tmp_path, EVERYTHING) == []

    (tmp_path / "accepted.json").write_text("{}\n")
    (tmp_path / "gather.json").unlink()
    (tmp_path / "telegram.json").write_text("{}\n")
    (tmp_path / "frame_f32.bin").write_bytes(b"")
    surplus = ["accepted.json", "frame_f32.bin", "gather.json", "telegram.json"]
    assert differences(tmp_path, EVERYTHING) == surplus

    write(tmp_path, EVERYTHING)
    assert differences(tmp_path, EVERYTHING) == []


@samples
def test_a_message_with_fields_of_a_newer_version_is_read_and_is_still_refused_of_a_client(name: str) -> None:
    sample = SAMPLES[name]
    if not isinstance(sample, Message):
        return
    newer = json.dumps({**json.loads(sample.to_bytes()), "news": "unknown here"}).encode()
    assert type(sample).read(newer) == sample
    with pytest.raises(ValidationError, match="news"):
        type(sample).model_validate_json(newer)


def test_what_is_within_a_message_may_be_newer_too() -> None:
    result = SAMPLES["result"]
    assert isinstance(result, Message)
    document = json.loads(result.to_bytes())
    document["answers"][0]["news"] = document["answers"][0]["timings"]["news"] = "unknown here"
    assert type(result).read(json.dumps(document)) == result

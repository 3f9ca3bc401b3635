"""The wire format of every message, as the golden files hold it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from schemas.errors import ErrorBody
from schemas.events import ANY_EVENT, Event
from schemas.message import Message, Struct
from schemas.tests.golden.__main__ import EVERYTHING, FOLDER, differences, write
from schemas.tests.golden.samples import SAMPLES

WITHOUT_SAMPLE: set[type[BaseModel]] = {Event}
"""Classes that are only ever sent as one of their subclasses."""

README = FOLDER.parents[1] / "README.md"


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
    elif isinstance(value, tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from parts_of(item)


def test_the_wire_format_is_that_of_the_golden_files() -> None:
    assert differences(FOLDER, EVERYTHING) == [], (
        "the wire format has changed: if that is meant, write the golden files with "
        "`uv run python -m schemas.tests.golden --write` and look at the difference"
    )


def test_every_message_has_a_sample() -> None:
    sampled = {type(sample) for sample in SAMPLES.values()}
    assert [message.__name__ for message in MESSAGES if message not in sampled] == []


def test_every_message_is_in_the_table_of_the_readme() -> None:
    readme = README.read_text(encoding="utf-8")
    assert [message.__name__ for message in MESSAGES if f"`{message.__name__}`" not in readme] == []


def test_every_field_is_filled_in_some_sample() -> None:
    filled = {
        (type(found), field)
        for sample in SAMPLES.values()
        for found in parts_of(sample)
        for field in type(found).model_fields
        if getattr(found, field) is not None
    }
    missing = [
        f"{part.__name__}.{field}"
        for part in by_name(set(PARTS) - WITHOUT_SAMPLE)
        for field in part.model_fields
        if (part, field) not in filled and not (issubclass(part, Event) and field in Event.model_fields)
    ]
    assert missing == []


def test_every_field_that_events_share_is_filled_in_some_event() -> None:
    events = [sample for sample in SAMPLES.values() if isinstance(sample, Event)]
    for field in Event.model_fields:
        assert any(getattr(event, field) is not None for event in events)


def test_a_message_comes_back_from_the_wire() -> None:
    assert SAMPLES
    for message in SAMPLES.values():
        assert type(message).model_validate_json(message.to_bytes()) == message


def test_a_message_comes_back_from_its_golden_file() -> None:
    for name, message in SAMPLES.items():
        assert type(message).model_validate_json((FOLDER / f"{name}.json").read_bytes()) == message, name


def refused(message: Message, field: str, value: object) -> bool:
    """Whether a message is not taken with this value, and the field is named."""
    try:
        type(message).model_validate({**message.model_dump(exclude_none=True), field: value})
    except ValidationError as error:
        return field in str(error)
    return False


def test_a_message_with_an_unknown_field_is_refused() -> None:
    assert [name for name, message in SAMPLES.items() if not refused(message, "unheard_of", 1)] == []


@pytest.mark.parametrize("version", [0, 2, "1.5", None])
def test_a_message_of_another_schema_version_is_refused(version: object) -> None:
    taken = [name for name, message in SAMPLES.items() if not refused(message, "schema_version", version)]
    assert taken == []


def test_every_part_is_frozen_and_closed() -> None:
    assert PARTS
    config = {part.__name__: part.model_config for part in PARTS}
    assert [name for name, each in config.items() if each.get("frozen") is not True] == []
    assert [name for name, each in config.items() if each.get("extra") != "forbid"] == []


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


def test_a_message_with_fields_of_a_newer_version_is_read_and_is_still_refused_of_a_client() -> None:
    for sample in SAMPLES.values():
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

"""The AsyncAPI document: it says what the catalog says, and every message on the wire is what it says."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema
from jsonschema import Draft7Validator
from typer import Typer
from typer.testing import CliRunner

from infra.asyncapi.document import document, main, render
from infra.asyncapi.schemas import message_classes
from schemas import subjects
from schemas.broker import catalog
from schemas.broker.catalog import Endpoint
from schemas.broker.channels import CHANNELS, PARAMETERS, address, matches, stream_of
from schemas.events import Event
from schemas.message import Message
from schemas.tests.golden.__main__ import FOLDER
from schemas.tests.golden.samples import SAMPLES

APP = Typer()
APP.command()(main)

DOCUMENT: dict[str, Any] = json.loads(render())
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
ADDRESSES = [channel["address"] for channel in DOCUMENT["channels"].values() if "address" in channel]

PATTERNS = {
    *(subject for stream in catalog.STREAMS for subject in (*stream.subjects, stream.republish_to)),
    *(endpoint.subject for endpoint in catalog.ENDPOINTS),
    *(subject for access in catalog.ACCESS for subject in (*access.publishes, *access.subscribes)),
    *(subjects.bucket_keys(bucket.name) for bucket in catalog.BUCKETS),
    *(subjects.bucket_updates(bucket.name) for bucket in catalog.BUCKETS if bucket.republished),
} - {""}
"""Every subject of the catalog."""


def run(*arguments: str) -> tuple[int, str]:
    """The command's exit code and output."""
    result = CliRunner().invoke(APP, list(arguments))
    return result.exit_code, result.output


def subclasses(of: type[Message]) -> Iterator[type[Message]]:
    """All messages of the contract."""
    for child in of.__subclasses__():
        if child.__module__.startswith("schemas."):
            yield child
            yield from subclasses(child)


MESSAGES = sorted({each.__name__ for each in subclasses(Message)} - {Event.__name__})
"""All that are sent as they are."""


def references(value: object) -> Iterator[str]:
    """Everything that a document refers to."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def at(reference: str) -> Any:
    """What a reference stands for; KeyError if that is nothing."""
    found: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def faults(message: str, value: object) -> list[str]:
    """What is wrong with a value as the payload of a message. AsyncAPI's schemas are those of draft 7."""
    schema = {"$ref": f"#/components/schemas/{message}", "components": {"schemas": SCHEMAS}}
    return [error.message for error in Draft7Validator(schema).iter_errors(value)]


def test_the_file_is_what_the_catalog_says() -> None:
    assert run("--check") == (0, "asyncapi.json is up to date\n")


def test_a_stale_file_is_noticed_and_rewritten(tmp_path: Path) -> None:
    file = tmp_path / "asyncapi.json"
    assert run("--check", "--file", str(file))[0] == 1
    assert run("--file", str(file))[0] == 0
    assert run("--check", "--file", str(file))[0] == 0
    file.write_text(file.read_text(encoding="utf-8").replace("choir.ask", "choir.asked"), encoding="utf-8")
    assert run("--check", "--file", str(file))[0] == 1


def test_the_document_is_one_of_asyncapi_3() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert ApplicationSchema.model_validate(DOCUMENT).to_jsonable() == document().to_jsonable()


def test_every_schema_is_one_of_draft_7() -> None:
    for name, schema in SCHEMAS.items():
        Draft7Validator.check_schema(schema)
        assert schema["type"] in ("object", "string"), name


def test_every_reference_leads_somewhere() -> None:
    found = set(references(DOCUMENT))
    assert found
    for reference in found:
        assert at(reference)


def test_no_schema_is_there_twice_or_for_nothing() -> None:
    used = {reference.rpartition("/")[2] for reference in references(DOCUMENT)}
    within = {part.__name__ for part in message_classes()}
    assert set(SCHEMAS) - used - within == set()
    assert not [name for name in SCHEMAS if "__" in name], "two classes of one name"


def test_every_subject_of_the_catalog_has_a_channel() -> None:
    assert PATTERNS
    assert [each for each in sorted(PATTERNS) if not any(matches(one, each) for one in ADDRESSES)] == []


def test_every_subject_that_can_be_spelled_is_the_address_of_one_channel() -> None:
    names = set(PARAMETERS) - {"key"}
    spelled = [
        address(function)
        for _, function in inspect.getmembers(subjects, inspect.isfunction)
        if inspect.signature(function).return_annotation == "str"
        and {name.rstrip("_") for name in inspect.signature(function).parameters} <= names
    ]
    ours = [one for one in spelled if one.startswith("choir.") and not one.endswith(("*", ">"))]
    assert len(ours) > 5
    assert [one for one in ours if ADDRESSES.count(one) != 1] == []
    assert len(set(ADDRESSES)) == len(ADDRESSES)


def test_every_message_is_in_the_document() -> None:
    assert MESSAGES
    assert [message for message in MESSAGES if SCHEMAS[message]["title"] != message] == []


def test_every_golden_file_is_what_the_document_says() -> None:
    for name, sample in SAMPLES.items():
        value = json.loads((FOLDER / f"{name}.json").read_bytes())
        message = type(sample).__name__
        assert faults(message, value) == [], name
        assert faults(message, {**value, "schema_version": 2}), name


def test_a_request_is_closed_to_unknown_fields_and_what_services_say_is_not() -> None:
    assert faults("Cancel", {"request_id": "r1", "unheard_of": 1})
    assert faults("Cancel", {}) and faults("Cancel", {"request_id": "a b"})
    assert faults("Cancelled", {"request_id": "r1", "cancelled": True, "unheard_of": 1}) == []
    worker = {"id": "w", "type": "vllm", "host": "h", "port": 80, "model": "m", "unheard_of": 1}
    assert faults("WorkersReply", {"workers": [{"worker": worker}]}) == []


def test_a_field_that_never_travels_is_not_described() -> None:
    assert "restarted" not in SCHEMAS["TokenChunk"]["properties"]


@pytest.mark.parametrize("endpoint", catalog.ENDPOINTS, ids=lambda endpoint: endpoint.subject)
def test_a_client_can_ask_every_endpoint_and_gets_an_answer_or_an_error(endpoint: Endpoint) -> None:
    name = subjects.endpoint_name(endpoint.subject)
    asks, answers = (
        DOCUMENT["operations"][who]
        for who in (f"client-sends-{name}", f"{endpoint.service}-receives-{name}-door")
    )
    assert (asks["action"], answers["action"]) == ("send", "receive")
    assert at(asks["channel"]["$ref"])["address"] == endpoint.subject
    assert matches(at(answers["channel"]["$ref"])["address"], endpoint.doors)

    replies = {one["name"]: one for one in map(at, references(asks["reply"]["messages"]))}
    assert set(replies) == {one["name"] for one in map(at, references(answers["reply"]["messages"]))}
    streams = {"TokenChunk", "Empty"} if endpoint.streams else set()
    assert set(replies) == {endpoint.gives, "ErrorReply"} | streams
    headers = replies["ErrorReply"]["headers"]["properties"]
    assert {subjects.ERROR_HEADER, subjects.ERROR_CODE_HEADER} <= set(headers)
    assert headers[subjects.KIND_HEADER]["const"] == "error"


def test_an_operation_s_messages_are_those_of_its_channel() -> None:
    for name, operation in DOCUMENT["operations"].items():
        for part in (operation, operation.get("reply", operation)):
            own = part["channel"]["$ref"] + "/messages/"
            assert part["messages"] and all(one["$ref"].startswith(own) for one in part["messages"]), name


def test_every_service_has_the_operations_that_it_may_do_and_nobody_else_has_any() -> None:
    tags = {tag["name"] for operation in DOCUMENT["operations"].values() for tag in operation["tags"]}
    others = {catalog.CLIENT_USER, catalog.SUPERVISOR}
    assert tags == others | {access.service for access in catalog.ACCESS}
    for access in catalog.ACCESS:
        for pattern in access.publishes:
            sent = [
                at(operation["channel"]["$ref"])["address"]
                for operation in DOCUMENT["operations"].values()
                if operation["tags"] == [{"name": access.service}] and operation["action"] == "send"
            ]
            assert any(matches(address, pattern) for address in sent), (access.service, pattern)


def test_whoever_pulls_from_a_stream_pulls_something_of_it() -> None:
    for stream in catalog.STREAMS:
        pulling = {who for channel in CHANNELS if stream_of(channel) is stream for who in channel.pulled_by}
        assert pulling == {access.service for access in catalog.ACCESS if stream.name in access.pulls}


def test_a_channel_describes_the_parameters_of_its_address() -> None:
    channels = {channel.name: channel for channel in CHANNELS}
    assert len(channels) == len(CHANNELS), "two channels of one name"
    for name, channel in channels.items():
        assert tuple(DOCUMENT["channels"][name].get("parameters", {})) == channel.parameters
    assert DOCUMENT["channels"]["generate"]["parameters"]["priority"]["enum"] == list(subjects.PRIORITIES)


def test_the_frames_of_stages_are_described_as_bytes() -> None:
    (items,) = DOCUMENT["channels"]["stage"]["messages"].values()
    assert (items["contentType"], items["payload"]["format"]) == ("application/octet-stream", "binary")

"""Subjects, keys and names, also for model names that mean harm."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import subjects
from schemas.broker.channels import matches
from schemas.subjects import decode_token, encode_token

REQUEST = "01JZ0CH0RA8W2M6Q4T7Y1B3N5P"
TOKEN = re.compile(r"[A-Za-z0-9_=-]+")
SUBJECT_TOKEN = re.compile(r"[A-Za-z0-9_=$-]+")

HOSTILE = (
    "llama3.2:3b",
    "org/model",
    "*",
    ">",
    "a.*.>",
    "$JS.API.STREAM.DELETE.COMMANDS",
    "..",
    ".",
    "=2E",
    "a b",
    "\n\r\t",
    "\x00",
    "模型",
    "e\u0301",
    "\u00e9",
    "😀",
    "x" * 128,
)
hostile = pytest.mark.parametrize("name", HOSTILE)
names = st.text(min_size=1)

FUNCTIONS = [
    function
    for _, function in inspect.getmembers(subjects, inspect.isfunction)
    if function.__module__ == subjects.__name__
    and function not in (encode_token, decode_token, subjects.model_of_consumer)
    and not {"subject", "key"} & set(inspect.signature(function).parameters)
]
"""All functions that make a subject, a key or a name, and none that takes one apart."""

ARGUMENTS = {
    "priority": "batch",
    "request_id": REQUEST,
    "round_": 2,
    "number": 7,
    "bucket": "choir_nodes",
    "pipeline": 7_204_113,
    "stage_": 1,
}


def made_by(function: object, name: str) -> Iterator[str]:
    """What a function of `subjects` makes if every free name is `name`."""
    assert callable(function)
    arguments = {
        parameter: ARGUMENTS.get(parameter, name) for parameter in inspect.signature(function).parameters
    }
    made = function(**arguments)
    yield from (made,) if isinstance(made, str) else made


@settings(deadline=None)
@given(names)
def test_a_token_is_safe_and_gives_back_its_name(name: str) -> None:
    token = encode_token(name)
    assert TOKEN.fullmatch(token)
    assert decode_token(token) == name


@settings(deadline=None)
@given(names, names)
def test_different_names_have_different_tokens(one: str, other: str) -> None:
    assert (encode_token(one) == encode_token(other)) == (one == other)


@settings(deadline=None)
@given(st.one_of(st.text(alphabet=st.characters()), st.text(alphabet="=0123456789ABCDEFabcdef+- _")))
def test_decoding_junk_gives_a_name_with_that_token_or_a_value_error(junk: str) -> None:
    try:
        name = decode_token(junk)
    except ValueError:
        return
    assert encode_token(name) == junk


@pytest.mark.parametrize(
    "junk", ["", "=", "=2", "=2e", "=ZZ", "a.b", "a b", "=41", "=+1", "= 1", "=C3", "é", "\ud800"]
)
def test_what_no_name_is_encoded_as_is_not_decoded(junk: str) -> None:
    with pytest.raises(ValueError):
        decode_token(junk)


@pytest.mark.parametrize("name", ["", "\ud800"])
def test_a_name_that_is_empty_or_no_text_has_no_token(name: str) -> None:
    with pytest.raises(ValueError):
        encode_token(name)


def test_an_everyday_name_stays_readable() -> None:
    assert encode_token("llama3.2:3b") == "llama3=2E2=3A3b"
    assert encode_token("choir-alto_2") == "choir-alto_2"


FREE_OF_NAMES = {
    "event",
    "dead",
    "dead_letter_of",
    "direct_get",
    "pull_next",
    "acknowledgements",
    "stream_info",
    "consumer_list",
    "stream_restore",
    "stream_snapshot",
    "unlabelled_score_key",
    "attempt_key",
    "attempt_keys",
    "retry_key",
    "retry_keys",
    "message_get",
    "held",
    "freed",
    "queue_of",
    "request_of_command",
}
"""Functions that take only names which Choir itself has chosen, hashes, or numbers."""


@hostile
def test_no_name_breaks_out_of_its_token(name: str) -> None:
    broken = [
        (function.__name__, made)
        for function in FUNCTIONS
        if function.__name__ not in FREE_OF_NAMES
        for made, plain in zip(made_by(function, name), made_by(function, "plain"), strict=True)
        if not is_made_as(plain.split("."), made.split("."))
    ]
    assert broken == []


def is_made_as(plain: list[str], made: list[str]) -> bool:
    """Whether a subject has the tokens that it has for a plain name, and each of them is safe."""
    return len(made) == len(plain) and all(
        SUBJECT_TOKEN.fullmatch(token) or token == plain_token in ("*", ">")
        for token, plain_token in zip(made, plain, strict=True)
    )


@hostile
def test_two_models_never_share_a_subject(name: str) -> None:
    others = [other for other in HOSTILE if other != name]
    for function in FUNCTIONS:
        if "model" in inspect.signature(function).parameters:
            mine = set(made_by(function, name))
            assert not any(mine & set(made_by(function, other)) for other in others)


def test_every_function_is_explained_and_gives_what_its_name_says() -> None:
    assert (
        subjects.generate("batch", "llama3.2:3b", "r1") == "choir.command.generate.batch.llama3=2E2=3A3b.r1"
    )
    assert subjects.gather("interactive", "r1") == "choir.command.gather.interactive.r1"
    assert subjects.summarize("batch", "r1") == "choir.command.summarize.batch.r1"
    assert subjects.answer("r1", 2, "org/model") == "choir.answer.r1.2.org=2Fmodel"
    assert subjects.result("r1") == "choir.result.r1"
    assert subjects.token("r1", "org/model") == "choir.token.r1.org=2Fmodel"
    assert subjects.score_key("org/model") == "agent.org=2Fmodel"
    assert all(function.__doc__ for function in FUNCTIONS)


@hostile
def test_the_model_is_found_in_the_name_of_its_queue_and_in_the_subject_of_a_command_for_it(
    name: str,
) -> None:
    for priority in subjects.PRIORITIES:
        assert subjects.model_of_consumer(subjects.generate_consumer(priority, name)) == name
        assert subjects.model_of_consumer(subjects.gather_consumer(priority)) is None
        queued = subjects.generate(priority, name, REQUEST)
        assert {subjects.model_of_generate(one) for one in (queued, subjects.held("alice", queued))} == {name}


def test_the_request_is_found_in_a_result_s_subject() -> None:
    assert subjects.request_of(subjects.result(REQUEST)) == REQUEST
    assert subjects.request_of(subjects.ALL_STORED_RESULTS.replace(">", REQUEST)) == REQUEST


def test_what_is_heard_when_it_is_stored_is_found_in_the_stream() -> None:
    heard = subjects.all_stored_answers_of(REQUEST).replace(">", "2.alpha")
    assert subjects.stored_subject(heard) == subjects.answer(REQUEST, 2, "alpha")


def test_the_agent_is_found_in_the_key_of_its_history_and_in_no_other_key() -> None:
    assert subjects.agent_of_score(subjects.score_key("llama3.2:3b")) == "llama3.2:3b"
    assert subjects.agent_of_score(subjects.feedback_key(REQUEST)) is None


def test_a_door_says_who_asked_and_what() -> None:
    door = subjects.door("alice", subjects.STREAM_ASK)
    assert door == "choir.door.alice.stream.ask"
    assert (subjects.tenant_at(door), subjects.asked_on(door)) == ("alice", subjects.STREAM_ASK)
    assert subjects.doors(subjects.ASK) == "choir.door.*.ask"
    assert subjects.endpoint_name(subjects.doors(subjects.ASK)) == "ask"


@hostile
def test_no_tenant_breaks_out_of_its_door(name: str) -> None:
    assert len(subjects.door(name, subjects.ASK).split(".")) == 4
    assert subjects.tenant_at(subjects.door(name, subjects.ASK)) == name


def test_what_came_through_no_door_is_the_local_tenant_s() -> None:
    counted = subjects.count_tokens("alpha")
    assert (subjects.tenant_at(counted), subjects.asked_on(counted)) == ("local", counted)


def test_an_endpoint_s_name_is_fit_for_the_services_api() -> None:
    for subject in (subjects.ASK, subjects.count_tokens("llama3.2:3b"), subjects.ALL_COUNTS):
        assert re.fullmatch(r"[A-Za-z0-9_-]+", subjects.endpoint_name(subject))


def test_the_key_is_found_in_the_subject_of_a_bucket_s_update() -> None:
    key = subjects.node_key("agent", "agent-1.local")
    assert subjects.key_of_update(subjects.bucket_updates("choir_nodes").replace(">", key)) == key
    assert subjects.key_in_bucket(subjects.bucket_key("choir_nodes", key)) == key


# --- the only place where a subject is spelled --------------------------------------------

ROOT = Path(__file__).parents[2]
FOLDERS = ("services", "infra", "loadtest", "analysis")
KINDS = sorted(
    {
        made.split(".")[1]
        for function in FUNCTIONS
        for made in made_by(function, "name")
        if made.startswith("choir.")
    }
    | {
        value.split(".")[1]
        for value in vars(subjects).values()
        if isinstance(value, str) and value.startswith("choir.")
    }
)
SPELLED = re.compile(rf"""["']choir\.({"|".join(KINDS)})(?![A-Za-z0-9_])""")


def sources() -> Iterator[Path]:
    for folder in FOLDERS:
        for path, folders, files in os.walk(ROOT / folder):
            folders[:] = [name for name in folders if name != "tests" and not name.startswith((".", "__"))]
            yield from (Path(path) / file for file in files if file.endswith(".py"))


def test_a_spelled_subject_would_be_found() -> None:
    assert {
        "ask",
        "command",
        "answer",
        "result",
        "token",
        "stage",
        "event",
        "dead",
        "stored",
        "signal",
        "count",
    } <= set(KINDS)
    assert SPELLED.search('publish("choir.ask", data)')
    assert SPELLED.search("f'choir.command.generate.{model}'")
    assert not SPELLED.search('"choir.toml"')
    assert not SPELLED.search('"choir.engine"')


def test_no_other_file_spells_a_subject() -> None:
    spelled = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if "choir." in line and SPELLED.search(line)
    ]
    assert spelled == [], "subjects are spelled in schemas/subjects.py and nowhere else"


@hostile
def test_a_command_that_is_held_goes_back_to_where_it_came_from(name: str) -> None:
    for queued in (subjects.generate("batch", name, "r1"), subjects.gather("batch", "r1")):
        held = subjects.held(name, queued)
        assert is_made_as(subjects.held("plain", queued).split("."), held.split("."))
        assert (subjects.freed(held), subjects.request_of_command(held)) == (queued, "r1")
        assert any(matches(held, pattern) for pattern in subjects.commands_of("r1"))

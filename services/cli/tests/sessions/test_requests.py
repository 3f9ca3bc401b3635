"""A request that was asked before, from the command line: its id, its answer, its end, what was right."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from infra.testing.choir_up import QUARTET, choir_command, clean_environment
from services.cli.sessions.recent import RecentRequest, age, asked, took
from services.cli.tests.conftest import Cli
from services.cli.tests.pseudo_terminal import on_terminal

ALL_FOUR = ",".join(QUARTET)
PATIENCE_S = 180.0


def until(look: Callable[[], Any]) -> Any:
    """What `look` finds: events are stored a little after what they tell of."""
    end_s = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < end_s
        time.sleep(0.1)
    return found


def test_a_submitted_request_is_fetched_by_its_id_and_looks_as_if_it_had_been_asked(cli: Cli) -> None:
    submitted = cli("ask", "Capital of France?", "--models", ALL_FOUR, "--submit")
    request_id = submitted.out.strip()
    fetched = cli("fetch", request_id, "--wait", "20")
    assert fetched.code == 0, fetched.err
    asked_now = cli("ask", "Capital of France?", "--models", ALL_FOUR, "--request-id", request_id)
    assert fetched.out == asked_now.out
    assert f"request {request_id}" in fetched.out
    as_json = json.loads(cli("fetch", "--last", "--json").out)
    assert (as_json["request_id"], as_json["text"]) == (request_id, "Paris")


def test_fetch_says_when_there_is_no_result_yet_and_cancel_ends_the_request(cli: Cli) -> None:
    request_id = json.loads(cli("ask", "Hi", "-m", "choir-slow", "--submit", "--json").out)["request_id"]
    early = cli("fetch", request_id)
    assert (early.code, early.out) == (1, "")
    assert early.err.startswith("choir: not_ready: ")
    assert cli("cancel", request_id).out == f"request {request_id} is cancelled\n"
    assert "cancelled" in cli("fetch", request_id).err
    again = cli("cancel", request_id)
    assert again.code == 0
    assert "has its result already" in again.out
    document = json.loads(cli("cancel", request_id, "--json").out)
    assert (document["request_id"], document["cancelled"]) == (request_id, False)


def test_feedback_counts_who_was_right_once(cli: Cli) -> None:
    cli("ask", "Capital of France?", "--models", ALL_FOUR)
    first = cli("feedback", "--last", "--correct", "Paris")
    assert first.code == 0, first.err
    right, wrong = first.out.splitlines()[:2]
    assert right.startswith("right: ") and "choir-one" in right and "choir-two" in right
    assert "choir-three" in wrong
    again = json.loads(cli("feedback", "--last", "--right", "--json").out)
    assert again["already_counted"]
    assert again["wrong"] == ["choir-three", "choir-four"]  # the last one's sentence is another text


def test_feedback_needs_an_answer_and_a_request(cli: Cli) -> None:
    for arguments in (
        ("x",),
        ("x", "--correct", "a", "--right"),
        ("--correct", "a"),
        ("x", "--last", "--right"),
    ):
        outcome = cli("feedback", *arguments)
        assert outcome.code == 2, outcome.err
        assert outcome.err.startswith("choir: invalid_request: ")


def test_the_last_request_of_a_host_that_has_asked_nothing_is_refused(offline_cli: Cli) -> None:
    for command in (("fetch",), ("cancel",), ("trace",), ("feedback", "--right")):
        outcome = offline_cli(*command, "--last")
        assert outcome.code == 2
        assert "nothing has been asked from this host yet" in outcome.err


def test_requests_lists_the_latest_first_and_by_status(cli: Cli) -> None:
    # Given a request that was answered, one that failed and one that is open
    for arguments in (("-m", "choir-one", "--request-id", "list-good"),
                      ("-m", "choir-slow", "--timeout", "0.3", "--request-id", "list-bad"),
                      ("-m", "choir-slow", "--submit", "--request-id", "list-open")):  # fmt: skip
        cli("ask", "Hi", *arguments)

    def listed(*options: str) -> dict[str, dict[str, Any]]:
        document = json.loads(cli("requests", "--json", *options).out)
        return {request["request_id"]: request for request in document["requests"]}

    until(lambda: {"list-good", "list-bad"} <= {i for i, r in listed().items() if r["status"] != "open"})
    until(lambda: "list-open" in listed())
    # Then all are listed, and each under its status
    every = list(listed())
    assert every.index("list-open") < every.index("list-bad") < every.index("list-good")
    assert "list-open" in listed("--open") and "list-good" not in listed("--open")
    failed = listed("--failed")
    assert failed["list-bad"]["error_code"] == "deadline_exceeded" and "list-good" not in failed
    assert len(listed("--limit", "1")) == 1
    lines = cli("requests").out.splitlines()
    assert lines[0].split() == ["request", "age", "status", "took", "asked"]
    row = next(line for line in lines if line.startswith("list-good"))
    assert row.split()[-1] == "choir-one" and "answered" in row
    cli("cancel", "list-open")


def test_the_way_of_the_last_request_needs_no_id(cli: Cli) -> None:
    request_id = json.loads(cli("ask", "Hi", "-m", "choir-one", "--json").out)["request_id"]
    document = until(lambda: json.loads(cli("trace", "--last", "--json").out).get("request_id"))
    assert document == request_id


def test_on_a_terminal_the_id_stands_under_the_answer_of_one_model(live_mesh: str, tmp_path: Any) -> None:
    environment = clean_environment(tmp_path, CHOIR_MESH__URL=live_mesh)
    command = choir_command("ask", "Hi", "-m", "choir-one", "--request-id", "shown-below")
    with on_terminal(command, environment, columns=80) as t:
        assert t.exit_code() == 0
        assert t.text.rstrip().endswith("request shown-below")
    assert (tmp_path / "choir" / "last_request").read_text() == "shown-below"


def test_a_stream_as_json_is_a_document_on_each_line(cli: Cli) -> None:
    outcome = cli("ask", "Hi", "-m", "choir-four", "--json", "--stream")
    *chunks, result = (json.loads(line) for line in outcome.out.splitlines())
    assert {chunk["kind"] for chunk in chunks} == {"token"}
    assert "".join(chunk["text"] for chunk in chunks) == result["text"] == "It is Paris of course"
    assert result["kind"] == "result"


def a_request(**fields: Any) -> RecentRequest:
    return RecentRequest(request_id="R", accepted_at_s=0.0, status="open", topology="single", **fields)


def test_ages_durations_and_who_was_asked_in_words() -> None:
    assert [age(s) for s in (-1.0, 8.4, 61.0, 7300.0, 200_000.0)] == ["0 s", "8 s", "1 min", "2 h", "2 d"]
    assert [took(ms) for ms in (None, 12.3, 3400.0)] == ["-", "12 ms", "3.4 s"]
    assert asked(a_request(models=("a",))) == "a"
    ensemble = a_request(models=("a", "b"), strategies=("majority", "isp"))
    assert asked(ensemble.model_copy(update={"topology": "ensemble"})) == "2 models: majority, isp"
    many = ensemble.model_copy(update={"topology": "ensemble", "strategies": ("a", "b", "c", "d")})
    assert asked(many) == "2 models: 4 strategies"
    assert asked(a_request(models=("a", "b")).model_copy(update={"topology": "chain"})) == "a → b"

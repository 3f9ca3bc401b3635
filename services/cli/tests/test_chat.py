"""A conversation: what is sent, what the slash commands do, and how it feels on a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess

import pytest
from rich.console import Console

from infra.testing.choir_up import choir_command
from schemas.commands import ChatMessage
from schemas.errors import InvalidRequest
from schemas.replies import Answer, Decision, Result
from services.cli.sessions.chat.conversation import Conversation
from services.cli.sessions.chat.loop import InterruptedLoop
from services.cli.sessions.chat.session import ChatSession
from services.cli.sessions.chat.slash import SLASH_COMMANDS, Quit, obey
from services.cli.tests.conftest import Cli
from services.cli.tests.pseudo_terminal import on_terminal

KNOWN = ("choir-one", "choir-two")


def test_what_was_said_travels_with_the_next_line() -> None:
    conversation = Conversation(model="choir-one")
    conversation.remember("Hello", "Hello!")
    ask = conversation.next_ask("And now?")
    assert ask.messages == (
        ChatMessage(role="user", content="Hello"),
        ChatMessage(role="assistant", content="Hello!"),
        ChatMessage(role="user", content="And now?"),
    )
    assert (ask.model, ask.stream) == ("choir-one", True)


def test_a_line_without_an_answer_is_as_if_it_had_not_been_said() -> None:
    conversation = Conversation()
    conversation.remember("Hello", None)
    assert conversation.messages == []


def test_slash_commands_change_who_is_asked() -> None:
    conversation = Conversation()
    assert "choir-two" in obey("/model", conversation, KNOWN)
    assert "no model" in obey("/model nobody", conversation, KNOWN)
    obey("/model choir-two", conversation, KNOWN)
    assert conversation.next_ask("Hi").model == "choir-two"
    assert "no strategy 'nope'" in obey("/strategy majority,nope", conversation, KNOWN)
    assert "dawid_skene" in obey("/strategy", conversation, KNOWN)
    assert conversation.model == "choir-two"
    obey("/strategy majority, weighted", conversation, KNOWN)
    ask = conversation.next_ask("Hi")
    assert (ask.model, ask.strategies) == (None, ("majority", "weighted"))


def test_new_forgets_help_lists_and_quit_ends() -> None:
    conversation = Conversation()
    conversation.remember("Hello", "Hello!")
    obey("/new", conversation, KNOWN)
    assert conversation.messages == []
    assert all(name in obey("/help", conversation, KNOWN) for name in SLASH_COMMANDS)
    assert "/help" in obey("/sing", conversation, KNOWN)
    with pytest.raises(Quit):
        obey("/quit", conversation, KNOWN)


def test_a_strategy_with_a_space_in_its_name_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        Conversation(strategies=("a b",)).next_ask("Hi")


def test_through_a_pipe_every_line_is_a_question(live_mesh: str) -> None:
    lines = "Hello\n\n/model choir-three\nCapital of France?\n/strategy dice\nHi\n/quit\nnot asked\n"
    outcome = subprocess.run(
        choir_command("chat", "--model", "choir-one"),
        input=lines,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CHOIR_MESH__URL": live_mesh},
    )
    assert outcome.returncode == 0
    assert outcome.stdout.splitlines()[0] == "Paris"
    assert "Lyon" in outcome.stdout.splitlines()
    assert "there is no strategy 'dice'; there are: majority, weighted" in outcome.stdout
    # And who was talked to is talked to still.
    assert outcome.stdout.count("Lyon") == 2


def test_for_programs_what_comes_of_each_line_is_a_document(live_mesh: str) -> None:
    lines = "Capital of France?\n/model choir-three\n/model\nAnd of Italy?\n" + "x" * 2_000_000 + "\n"
    outcome = subprocess.run(
        choir_command("chat", "--model", "choir-one", "--json"),
        input=lines,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CHOIR_MESH__URL": live_mesh},
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")
    first, changed, listed, second, refused = (json.loads(line) for line in outcome.stdout.splitlines())
    assert (first["kind"], first["text"], first["answers"][0]["model"]) == ("result", "Paris", "choir-one")
    assert changed == {"command": "/model choir-three", "reply": "you talk to choir-three"}
    assert "choir-two" in listed["reply"]
    assert (second["text"], second["answers"][0]["model"]) == ("Lyon", "choir-three")
    assert refused["error"]["code"] == "payload_too_large"


def test_a_line_whose_answers_nobody_can_read_says_who_said_what(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(
        request_id="R1",
        agent="choir-one",
        model="choir-one",
        instance="lab",
        text="Perhaps",
        finish_reason="stop",
    )
    decision = Decision(strategy="majority", share=0.0, margin=0.0, tie=False, votes=(), scores={})
    result = Result(
        request_id="R1", fingerprint="", topology="ensemble", answers=(answer,), decisions=(decision,),
        accepted_at_s=1.0, completed_at_s=2.0,
    )  # fmt: skip
    ChatSession(Conversation(), Console(file=io.StringIO())).finish(result, "")
    told = capsys.readouterr().err
    assert told.startswith("choir: answers_unreadable: none of the ")
    assert 'choir-one: "Perhaps"' in told


def test_a_chat_with_nobody_or_under_no_strategy_does_not_begin(cli: Cli) -> None:
    outcome = cli("chat", "--model", "nobody")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("choir: unknown_model: ") and "choir-one" in outcome.err
    outcome = cli("chat", "--strategy", "majority,nope")
    assert outcome.code == 2
    assert "no strategy 'nope'" in outcome.err


def test_on_a_terminal_ctrl_c_stops_an_answer_and_ctrl_d_ends(live_mesh: str) -> None:
    environment = {**os.environ, "CHOIR_MESH__URL": live_mesh}
    with on_terminal(choir_command("chat", "--model", "choir-slow"), environment, columns=80) as t:
        # Given an answer that takes a minute
        t.wait_for("> ")
        t.type("Hello\n")
        t.wait_for("asking")
        # When Ctrl-C is typed, then it stops, and the conversation goes on
        t.type("\x03")
        t.wait_for("(stopped)")
        t.type("/model choir-one\n")
        t.wait_for("you talk to choir-one")
        t.type("Capital of France?\n")
        t.wait_for("tokens/s\nrequest ")
        # And Ctrl-C at the prompt ends nothing, and Ctrl-D ends it
        t.insist("\x03", lambda: "(Ctrl-D or /quit ends)\n> " in t.text)
        t.insist("\x04", lambda: t.process.poll() is not None)
        assert t.exit_code() == 0, t.text
        assert "Traceback" not in t.text


def test_ctrl_c_whenever_it_comes_leaves_a_loop_that_runs() -> None:
    with InterruptedLoop() as loop:
        # Given a Ctrl-C in the very step in which the work ends
        async def interrupted_at_its_end() -> None:
            signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            loop.run(interrupted_at_its_end())

        # And one while it waits
        async def interrupted_while_it_waits() -> None:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(10)

        with pytest.raises(KeyboardInterrupt):
            loop.run(interrupted_while_it_waits())

        # And one that the work bears
        async def goes_on() -> str:
            signal.raise_signal(signal.SIGINT)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(10)
            return "went on"

        assert loop.run(goes_on()) == "went on"

        # And one while a line is read
        def interrupted() -> str:
            signal.raise_signal(signal.SIGINT)
            return "a line"

        with pytest.raises(KeyboardInterrupt):
            loop.read(interrupted)
        # And one while nothing runs and nothing is read: it is meant for what comes next
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            loop.read(lambda: "a line")
        assert loop.read(lambda: "a line") == "a line"
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            loop.run(asyncio.sleep(0))
        # Then the loop runs as before
        assert loop.run(asyncio.sleep(0, "still here")) == "still here"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

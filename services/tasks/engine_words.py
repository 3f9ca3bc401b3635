"""What the engine says, in the words of a task: for the services that generate with it."""

from __future__ import annotations

from dataclasses import asdict

from services.engine import Finished, TokenEvent
from services.tasks.generate import Generated
from services.tasks.token_stream import Piece


def piece_of(event: TokenEvent) -> Piece:
    """An event of the engine as a piece of the answer."""
    logprobs = tuple(asdict(logprob) for logprob in event.logprobs)
    return Piece(event.text, event.thinking, event.calls, logprobs=logprobs)


def generated(finished: Finished) -> Generated:
    """An engine's outcome as a task's; raises its error."""
    if finished.error is not None:
        raise finished.error
    return Generated(
        text=finished.text,
        finish_reason=finished.finish_reason,
        prompt_tokens=finished.prompt_tokens,
        prompt_tokens_reused=finished.prefix_reused_tokens,
        generated_tokens=finished.generated_tokens,
        queue_ns=finished.queue_ns,
        prompt_eval_ns=finished.prompt_eval_ns,
        eval_ns=finished.eval_ns,
        first_token_ns=finished.first_token_ns,
        logprobs=tuple(asdict(logprob) for logprob in finished.logprobs),
        thinking=finished.thinking or None,
        tool_calls=finished.calls,
        prompt_logprobs=tuple(asdict(logprob) for logprob in finished.prompt_logprobs),
        stop_string=finished.stop_string,
    )

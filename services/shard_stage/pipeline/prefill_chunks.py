"""Cuts a prompt into chunks, so that the stages work on different ones at the same time.

Layer-wise, the whole prompt goes through one stage after another. Token-wise, chunks follow one another and
the stages overlap. A chunk of its own costs every stage another step, and the wire another hop.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from schemas.pipelines.plan import Partition

TOKENWISE_CHUNK = 64
CHUNKS = (16, 32, 64, 128)
NEARLY_BEST = 1.03
"""Of chunks that are about as good the largest is taken: it costs least beside what else is computed."""
HOP_BYTES = 16 * 1024
"""The size of the frame whose time is `hop_ms`."""


@dataclass(frozen=True)
class Costs:
    """Measured costs: milliseconds of a step of a single token, which reads all weights, of each further
    token in a long step, of a hop of HOP_BYTES; and the bytes of a token's frame."""

    step_ms: float
    token_ms: float
    hop_ms: float
    token_bytes: int


def chunk_tokens(partition: Partition, prompt_tokens: int, stages: int, costs: Costs) -> int:
    """How many tokens of a prompt are sent on together; all of them where overlapping does not pay off."""
    if stages == 1 or partition == "layerwise":
        return prompt_tokens
    if partition == "tokenwise":
        return min(TOKENWISE_CHUNK, prompt_tokens)
    possible = [*(chunk for chunk in CHUNKS if chunk < prompt_tokens), prompt_tokens]
    times_ms = {chunk: prefill_ms(prompt_tokens, chunk, stages, costs) for chunk in possible}
    near = NEARLY_BEST * min(times_ms.values())
    return max(chunk for chunk, ms in times_ms.items() if ms <= near)


def prefill_ms(prompt_tokens: int, chunk: int, stages: int, costs: Costs) -> float:
    """The time until the last stage has read a prompt: the first chunk goes through all stages, the others
    follow at the tuner of what is slower, computing a chunk or sending it."""
    compute_ms = costs.step_ms + chunk * costs.token_ms
    # Half of a hop's time is for the message, whatever its size, half for its bytes.
    send_ms = costs.hop_ms * (1 + chunk * costs.token_bytes / HOP_BYTES) / 2
    followers = ceil(prompt_tokens / chunk) - 1
    return stages * compute_ms + (stages - 1) * send_ms + followers * max(compute_ms, send_ms)

"""What stages of a pipeline tell one another, a sample of each message."""

from __future__ import annotations

from schemas.commands import ChatMessage, Generate
from schemas.message import Message
from schemas.pipelines.stages import SequenceStart, StageBeat
from schemas.requests.sampling import Sampling

COMMAND = Generate(
    request_id="01JD3V5R8M7Q2N4P6S8T0W1X2Y",
    agent="llama3.2:3b",
    model="llama3.2:3b",
    messages=(ChatMessage(role="user", content="What is the capital of France?"),),
    sampling=Sampling(max_tokens=8, temperature=0.7, seed=7),
    fingerprint="0f1e2d3c4b5a69788796a5b4c3d2e1f0",
    accepted_at_s=1_700_000_000.25,
    deadline_at_s=1_700_000_060.25,
)

STAGE_SAMPLES: dict[str, Message] = {
    "sequence_start": SequenceStart(
        request_id=COMMAND.request_id,
        sampling=COMMAND.sampling,
        command=COMMAND,
        acknowledge="$JS.ACK.COMMANDS.generate-interactive-llama3=2E2=3A3b.1.41.7.1700000000250000000.0",
        prompt_tokens=21,
        generated=(464, 3139, 310),
        recent=(11, 42),
        follows=12,
        draws=3,
        resumed=1,
    ),
    "stage_beat": StageBeat(
        pipeline=0x0123_4567_89AB_CDEF,
        epoch=3,
        stage=0,
        instance="bass-stage-1",
        ready=True,
        cells={7: 24, 9: 0},
        step_ms={1: 10.8, 4: 31.5},
        idle=False,
        progress=512,
        live=(7, 9),
        oldest_began_at_s=1_700_000_000.5,
        first=True,
    ),
}

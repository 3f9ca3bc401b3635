"""One message of every type, or several where one cannot have all fields: what the golden files show."""

from __future__ import annotations

from schemas.golden.command_samples import COMMAND_SAMPLES
from schemas.golden.event_samples import EVENT_SAMPLES
from schemas.golden.node_samples import NODE_SAMPLES
from schemas.golden.reply_samples import REPLY_SAMPLES
from schemas.golden.stage_samples import STAGE_SAMPLES
from schemas.golden.store_samples import STORE_SAMPLES
from schemas.message import Message

SAMPLES: dict[str, Message] = {
    **STAGE_SAMPLES,
    **STORE_SAMPLES,
    **COMMAND_SAMPLES,
    **REPLY_SAMPLES,
    **NODE_SAMPLES,
    **EVENT_SAMPLES,
}

"""One message of every type, or several where one cannot have all fields: what the golden files show."""

from __future__ import annotations

from schemas.message import Message
from schemas.tests.golden.command_samples import COMMAND_SAMPLES
from schemas.tests.golden.event_samples import EVENT_SAMPLES
from schemas.tests.golden.node_samples import NODE_SAMPLES
from schemas.tests.golden.reply_samples import REPLY_SAMPLES
from schemas.tests.golden.stage_samples import STAGE_SAMPLES
from schemas.tests.golden.store_samples import STORE_SAMPLES

SAMPLES: dict[str, Message] = {
    **STAGE_SAMPLES,
    **STORE_SAMPLES,
    **COMMAND_SAMPLES,
    **REPLY_SAMPLES,
    **NODE_SAMPLES,
    **EVENT_SAMPLES,
}

"""What the engine and the processes of its grammars say to one another, and what these may use.

The engine sends the constraint as JSON, and gets `READY` or an error as JSON. Then it sends `TRY` with a
token, and gets `ALLOWED` when the token has been accepted, else a bit for each token of the vocabulary
that may come; or `ACCEPT` with tokens, which has no reply.
"""

from __future__ import annotations

READY = b"ready"
TRY = b"t"
ACCEPT = b"a"
ALLOWED = b"\1"
TOKEN = "<i"

STEP_LIMIT_S = 1.0
"""Seconds of computing for one token, and for making the grammar ready."""
TOTAL_LIMIT_S = 120
"""Seconds of computing for a whole text."""
MEMORY_LIMIT_BYTES = 512 * 1024**2
NICENESS = 5

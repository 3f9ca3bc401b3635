"""Time limits of stopping: for a service, and for whoever ends its process."""

from __future__ import annotations

ENDPOINTS_PATIENCE_S = 5.0
"""For requests that are open when a service stops."""

DRAIN_PATIENCE_S = 20.0
"""For work that is not finished when a service stops; then it is given back."""

TIDY_UP_S = 5.0
"""To give work back, say the last events, and give the lease back."""

STOP_LIMIT_S = ENDPOINTS_PATIENCE_S + DRAIN_PATIENCE_S + TIDY_UP_S
"""A service that has not ended by then hangs, and may be killed."""

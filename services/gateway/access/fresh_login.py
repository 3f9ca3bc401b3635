"""How long ago a browser showed its key: beside the key it keeps a moment, signed with that key's secret.

Any gateway can tell it, and none keeps anything. Whoever has the secret can sign any moment, and could log in
as well: this is for the browser that somebody left open, and whose cookie shows the key by itself.
"""

from __future__ import annotations

import hashlib
import hmac
import time

LOGIN_COOKIE = "choir_login"


def login_of(secret: str, at_s: float | None = None) -> str:
    """What a browser keeps that has shown a secret at this moment (Unix time, now if none is given)."""
    moment = str(int(time.time() if at_s is None else at_s))
    return f"{moment}.{_signed(secret, moment)}"


def is_fresh(login: str | None, secret: str, within_s: float) -> bool:
    """Whether a browser that keeps `login` has shown this secret so few seconds ago."""
    moment, _, signature = (login or "").partition(".")
    if not (moment.isascii() and moment.isdigit()):
        return False
    if not hmac.compare_digest(signature.encode(), _signed(secret, moment).encode()):
        return False
    return 0 <= time.time() - int(moment) <= within_s


def _signed(secret: str, moment: str) -> str:
    return hmac.new(secret.encode(), f"login {moment}".encode(), hashlib.sha256).hexdigest()

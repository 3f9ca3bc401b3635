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


def fresh_until_s(login: str, secret: str, within_s: float) -> float:
    """Until when (Unix time) a browser counts as one that has shown this secret so few seconds ago; 0 if what
    it keeps as `login` says nothing of the kind."""
    moment, _, signature = login.partition(".")
    if not (moment.isascii() and moment.isdigit()):
        return 0.0
    if not hmac.compare_digest(signature.encode(), _signed(secret, moment).encode()):
        return 0.0
    return int(moment) + within_s if int(moment) <= time.time() else 0.0


def _signed(secret: str, moment: str) -> str:
    return hmac.new(secret.encode(), f"login {moment}".encode(), hashlib.sha256).hexdigest()

"""How long ago a browser showed its key: beside the key it keeps a moment, signed with that key's secret.

Any gateway can tell it, and none keeps anything. Whoever has the secret can sign any moment, and could log in
as well: this is for the browser that somebody left open, and whose cookie shows the key by itself.
"""

from __future__ import annotations

import hashlib
import hmac

LOGIN_COOKIE = "choir_login"


def login_of(secret: str, at_s: float) -> str:
    """What a browser keeps that has shown a secret at this moment (Unix time, that of all gateways)."""
    moment = str(int(at_s))
    return f"{moment}.{_signed(secret, moment)}"


def fresh_for_s(login: str, secret: str, within_s: float, now_s: float) -> float:
    """How many seconds more a browser counts as one that has shown this secret so few seconds ago; 0 if it
    does not, or if what it keeps as `login` says nothing of the kind."""
    moment, _, signature = login.partition(".")
    if not (moment.isascii() and moment.isdigit()):
        return 0.0
    if not hmac.compare_digest(signature.encode(), _signed(secret, moment).encode()):
        return 0.0
    return max(0.0, int(moment) + within_s - now_s) if int(moment) <= now_s else 0.0


def _signed(secret: str, moment: str) -> str:
    return hmac.new(secret.encode(), f"login {moment}".encode(), hashlib.sha256).hexdigest()

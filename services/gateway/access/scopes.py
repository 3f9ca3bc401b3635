"""What a path needs, by the path of the route that will run; what is not named here is for operators. And
whether it takes tokens of the key that asks."""

from __future__ import annotations

from typing import Literal

from schemas.requests.keys import KeyScope

Need = KeyScope | Literal["nothing", "look"]
"""`look` is what somebody may who may `generate` or `observe`: where one sees what one has asked oneself."""

NEEDS: tuple[tuple[str, Need], ...] = (
    ("/", "nothing"),
    ("/api/version", "nothing"),
    ("/api/chat", "generate"),
    ("/api/generate", "generate"),
    ("/api/embed", "embed"),
    ("/api/embeddings", "embed"),
    ("/api/tags", "models"),
    ("/api/ps", "models"),
    ("/api/show", "models"),
    ("/api/me", "models"),
    ("/api/distributed/requests", "look"),
    ("/api/distributed/requests/*", "look"),
    ("/api/distributed/*", "observe"),
    ("/metrics", "observe"),
    ("/dashboard", "observe"),
    ("/dashboard/ask", "generate"),
    ("/dashboard/ask/*", "generate"),
    ("/dashboard/requests/*", "look"),
    ("/dashboard/actions/*", "operate"),
    ("/dashboard/admin", "operate"),
    ("/dashboard/live/admin", "operate"),
    ("/dashboard/models", "operate"),
    ("/dashboard/live/models", "operate"),
    ("/dashboard/workers", "operate"),
    ("/dashboard/live/workers", "operate"),
    ("/dashboard/login", "nothing"),
    ("/dashboard/static/{name}", "nothing"),
    ("/favicon.ico", "nothing"),
    ("/dashboard/*", "observe"),
    ("/v1/models", "models"),
    ("/v1/models/*", "models"),
    ("/v1/chat/completions", "generate"),
    ("/v1/completions", "generate"),
    ("/v1/embeddings", "embed"),
    ("/v1/responses", "generate"),
    ("/v1/responses/*", "generate"),
    ("/v1/messages", "generate"),
    ("/v1/messages/*", "generate"),
    ("/v1/files", "generate"),
    ("/v1/files/*", "generate"),
    ("/v1/batches", "generate"),
    ("/v1/batches/*", "generate"),
    ("/tokenize", "generate"),
    ("/detokenize", "generate"),
    ("/tokenizer_info", "models"),
    ("/models/*", "generate"),
    ("/openapi.json", "models"),
)
"""The path of a route, or with `*` all below, and what a key must open for it."""
_EXACT = {path: need for path, need in NEEDS if not path.endswith("*")}
_BELOW = tuple((path[:-1], need) for path, need in NEEDS if path.endswith("*"))
READING = frozenset(("GET", "HEAD", "OPTIONS"))


def need_of(path: str, method: str) -> Need:
    """What a request needs at a route's path, such as `/v1/models/{model:path}`. Whoever may `observe` may
    change nothing by it."""
    need: Need = "operate"
    if path in _EXACT:
        need = _EXACT[path]
    else:
        need = next((said for prefix, said in _BELOW if path.startswith(prefix)), "operate")
    return "operate" if need == "observe" and method not in READING else need


WITHOUT_TOKENS = (
    "/v1/responses/",
    "/v1/messages/",
    "/v1/files",
    "/v1/batches",
    "/tokenize",
    "/detokenize",
    "/models/{model:path}/tokenize",
    "/models/{model:path}/detokenize",
    "/dashboard/ask/feedback",
)
"""How the paths of routes begin that a key opens by `generate`, and by which a model writes nothing. What the
lines of a batch take is looked at with each line."""


def takes_tokens(path: str, method: str) -> bool:
    """Whether a request at a route's path has a model read or write something, so that a key which has used
    its tokens is refused there. What reads lists, counts tokens or cancels goes on to be answered."""
    if method in READING or need_of(path, method) not in ("generate", "embed"):
        return False
    return not path.startswith(WITHOUT_TOKENS)

"""API keys of HTTP servers: `[workers.keys]` names them, each with the servers that may get it.

Whoever registers a worker says a name, never where the key is kept, and the key goes to no server that the
operator has not written down for it: otherwise a stranger could have any secret of this host sent to himself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from schemas.errors import ModelUnusable
from services.agent.settings import KeySection, ModelSection, ServerSection
from services.chassis.settings import config_path

FIELD = "key_variable"
DEFAULT_PORTS = {"https": 443, "http": 80}

Origin = tuple[str, str, int]
"""Scheme, host and port."""


def origin(url: str) -> Origin:
    """Where a request to a URL goes."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:  # no number: whoever connects will say so
        port = None
    return parts.scheme, parts.hostname or "", port or DEFAULT_PORTS.get(parts.scheme, 0)


def with_key(model: ModelSection, keys: Mapping[str, KeySection]) -> ModelSection:
    """The same model, its server with the key that it may have. ModelUnusable says why it may have none."""
    if model.server is None or model.server.key_variable is None:
        return model
    server = model.server.with_key(_key(model.server, model.server.key_variable, keys))
    return model.model_copy(update={"server": server})


def _key(server: ServerSection, name: str, keys: Mapping[str, KeySection]) -> str:
    wanted = "{}://{}:{}".format(*origin(server.url))
    if name not in keys:
        raise ModelUnusable(
            f"{FIELD}: this agent's host has no key {name}. Its operator writes into choir.toml: "
            f'[workers.keys] {name} = {{ variable = "MY_VARIABLE", hosts = ["{wanted}"] }}',
            field=FIELD,
        )
    key = keys[name]
    if origin(server.url) not in map(origin, key.hosts):
        raise ModelUnusable(
            f"{FIELD}: key {name} is not for {wanted}, so it is not sent there; it is for: "
            f"{', '.join(key.hosts)}. The operator of the agent's host may add it to hosts in [workers.keys]",
            field=FIELD,
        )
    return _read(name, key)


def _read(name: str, key: KeySection) -> str:
    if key.file is None:
        value, where = os.environ.get(key.variable or ""), f"the environment variable {key.variable}"
    else:
        folder = (config_path() or key.file).absolute().parent
        path = folder / key.file.expanduser()
        where = f"the file {path}"
        try:
            value = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ModelUnusable(
                f"{FIELD}: key {name} cannot be read from {where}: {error}", field=FIELD
            ) from error
    value = (value or "").strip()
    if not value or not value.isascii() or not value.isprintable():
        raise ModelUnusable(
            f"{FIELD}: key {name} is to be in {where} of the agent's host, and there is no key in it",
            field=FIELD,
        )
    return value

"""Settings of the gateway: section `[gateway]`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from schemas.message import Name, field_error
from services.chassis.nats.connecting.address import is_loopback
from services.chassis.settings import Section, ServiceSettings

DEFAULT_PORT = 11_435
"""One above Ollama's own, which may run on the same host."""

MIB = 1024 * 1024


class GatewaySection(Section):
    """`enabled` says whether `choir up` starts a gateway on this host; it listens at `host`, `port` (0: any
    free one).

    `hosts` are further names under which clients may address it, `origins` the web pages that may
    (`https://chat.example`). A request may take `timeout_s`. While its answer is not there a stream begins
    after `first_byte_s`, and gives a sign of life every `heartbeat_s`. A body has at most `max_body_bytes`
    and arrives within `body_timeout_s`, a head at most `max_head_bytes` within `head_timeout_s`; a reader who
    takes nothing for `write_timeout_s` is left. A file that is uploaded has at most `max_file_bytes`. What
    clients wanted that try again by themselves goes on for `retry_grace_s` when they have gone: those of
    OpenAI, in Python and in JavaScript, wait 0.375 to 0.5 s before they first do, and who does not come back
    is to have its agent stopped within a second. At most
    `max_connections` are open at a time, and `max_connections_per_address` of one address (of IPv6: of one
    network /64); those of `trusted_proxies` are not counted.

    With `cache` requests whose answer is the same each time may be answered by an equal one's result; for
    that this gateway keeps results in `cache_bytes` of its memory, each for `cache_keep_s`.

    `results` is the folder of evaluations and load tests that the dashboard shows.

    `sets` are named sets of models, for ensembles such as `choir/majority@small`. `task_model` answers what
    chat front ends ask for themselves, titles and tags, in the place of an ensemble.

    The log has a line for each request that is refused, and with `access_log` for each that is answered: who
    asked at which path, what came of it, and how long that took.

    `keys_required` has everybody show an API key (`choir keys add`). It is so wherever other hosts reach the
    gateway; and there `tls_certificate` and `tls_key` (files in PEM) have it speak https, or `behind_proxy`
    says that something else does. Of `trusted_proxies` it believes which address a request came from. A
    browser shows its key again for what operates the mesh when it did so more than `login_fresh_s` ago.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65_535)
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    timeout_s: float = Field(default=600.0, ge=0.1, le=3_600.0)
    first_byte_s: float = Field(default=1.0, ge=0.0, le=60.0)
    heartbeat_s: float = Field(default=5.0, ge=0.05, le=60.0)
    max_body_bytes: int = Field(default=MIB, ge=1_024, le=64 * MIB)
    max_file_bytes: int = Field(default=64 * MIB, ge=1_024, le=512 * MIB)
    body_timeout_s: float = Field(default=60.0, gt=0.0)
    max_head_bytes: int = Field(default=16 * 1024, ge=1_024)
    head_timeout_s: float = Field(default=10.0, gt=0.0)
    write_timeout_s: float = Field(default=60.0, gt=0.0)
    retry_grace_s: float = Field(default=0.6, ge=0.0, le=60.0)
    max_connections: int = Field(default=1_024, ge=1)
    max_connections_per_address: int = Field(default=512, ge=1)
    cache: bool = True
    cache_bytes: int = Field(default=64 * MIB, ge=0)
    cache_keep_s: float = Field(default=300.0, ge=0.0, le=3_600.0)
    task_model: Name | None = None
    results: Path = Path("results")
    sets: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)
    keys_required: bool | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    behind_proxy: bool = False
    trusted_proxies: tuple[str, ...] = ()
    access_log: bool = False
    login_fresh_s: float = Field(default=900.0, gt=0.0)

    @property
    def address(self) -> str | None:
        """Where clients reach it; None if it takes any free port."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "http" if self.tls_certificate is None else "https"
        return f"{scheme}://{name}:{self.port}" if self.port else None

    @property
    def keys_needed(self) -> bool:
        """Whether whoever asks has to show a key."""
        return self.keys_required or (self.keys_required is None and not is_loopback(self.host))

    @model_validator(mode="after")
    def _safe_where_others_reach_it(self) -> GatewaySection:
        if (self.tls_certificate is None) != (self.tls_key is None):
            missing = "tls_key" if self.tls_key is None else "tls_certificate"
            raise field_error(missing, "tls_certificate and tls_key belong together, and one is missing")
        if is_loopback(self.host):
            return self
        if self.keys_required is False:
            raise field_error(
                "keys_required",
                f"{self.host} can be reached from other hosts, and without keys whoever reaches the gateway "
                "may ask: leave keys_required out, or let host be 127.0.0.1",
            )
        if self.tls_certificate is None and not self.behind_proxy:
            raise field_error(
                "tls_certificate",
                f"{self.host} can be reached from other hosts, and keys would travel in clear: set "
                "tls_certificate and tls_key, or behind_proxy = true if something before it speaks https",
            )
        return self


class GatewaySettings(ServiceSettings):
    """What a gateway can be told."""

    gateway: GatewaySection = GatewaySection()

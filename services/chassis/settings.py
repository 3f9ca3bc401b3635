"""Settings from `choir.toml` and the environment, for every service.

A service's settings are a subclass of `ServiceSettings` with one more section. The file is the one
named by `CHOIR_CONFIG`, else `choir.toml` in the working directory, if there is one. The environment
wins over the file: `CHOIR_MESH__URL=nats://host:4222` sets `url` in section `[mesh]`.
"""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from schemas.errors import ConfigurationError
from services.chassis.nats.connecting.tls import trusting
from services.chassis.process.wrong_settings import faults_of

CONFIG_VARIABLE = "CHOIR_CONFIG"
SECRET_VARIABLES = (
    "CHOIR_MESH", "CHOIR_MESH__PASSWORD", "CHOIR_MESH__URL", "CHOIR_MODELSTORE", "CHOIR_MODELSTORE__TOKEN",
)  # fmt: skip
DEFAULT_CONFIG = Path("choir.toml")
DEFAULT_URL = "nats://127.0.0.1:4222"


class Section(BaseModel):
    """A table of `choir.toml`; a key that nobody declared is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MeshSection(Section):
    """`[mesh]`: how to reach the broker (`url` names all of a cluster, with commas between them), and as
    whom: by user and password, or by `nkey`, a file with the seed that stands for a user. An empty one
    counts as none: a variable that is set and empty is what a compose file makes of one that nobody has set.
    `password_file` holds the password in its first line, as the secrets of containers and of systemd do.
    `ca` is a PEM file: the broker is known by a certificate of that authority and by no other, and nothing
    is sent in plain text. With a URL `tls://...` and no `ca` it is known by what this system trusts. With
    `tls_first` the connection begins with TLS, so that nobody between can talk us out of it, and the broker
    has to expect that (`handshake_first`); by default it does with `ca`."""

    url: str = DEFAULT_URL
    user: str | None = None
    password: str | None = None
    password_file: Path | None = None
    nkey: str | None = None
    ca: str | None = None
    tls_first: bool | None = None

    @field_validator("user", "password", "nkey", "ca")
    @classmethod
    def _none_if_empty(cls, value: str | None) -> str | None:
        return value if value and value.strip() else None

    @model_validator(mode="after")
    def _read_password(self) -> MeshSection:
        if self.password_file is None:
            return self
        if self.password is not None:
            raise ValueError("password and password_file are both set: leave one of them out")
        try:
            lines = self.password_file.expanduser().read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ValueError(f"password_file: {self.password_file} cannot be read: {why}") from error
        if not lines or not lines[0].strip():
            raise ValueError(f"password_file: {self.password_file} has no password in its first line")
        # A frozen model is complete only after this: see the documentation of pydantic's model validators.
        object.__setattr__(self, "password", lines[0].strip())
        return self

    @property
    def servers(self) -> list[str]:
        """The addresses in `url`, one for each broker of a cluster: the first is tried first."""
        return [one.strip() for one in self.url.split(",")]

    @property
    def credentials(self) -> dict[str, Any]:
        """How nats-py is told who connects, and by what it knows the broker. ConfigurationError if a file
        cannot be read."""
        context = self.tls
        first = self.ca is not None if self.tls_first is None else self.tls_first
        tls = {} if context is None else {"tls": context, "tls_handshake_first": first}
        return self._who | tls

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What has to be proved to us before anything is sent; None where it is sent in plain text."""
        if self.ca is None:
            return trusting(None) if self.url.startswith("tls://") else None
        path = Path(self.ca).expanduser()
        try:
            return trusting(path)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"mesh.ca names {path}, and that is no file of certificates that can be read", field="mesh.ca"
            ) from error

    @property
    def _who(self) -> dict[str, Any]:
        if self.nkey is None:
            return {} if self.user is None else {"user": self.user, "password": self.password or ""}
        path = Path(self.nkey).expanduser()
        if not os.access(path, os.R_OK):
            raise ConfigurationError(
                f"mesh.nkey names {path}, and that is no file to be read", field="mesh.nkey"
            )
        return {"nkeys_seed": str(path)}


class LoggingSection(Section):
    """`[logging]`: one line per event, for people (`console`) or for machines (`json`)."""

    format: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"


class HealthSection(Section):
    """`[health]`: an HTTP port with `/health/live` and `/health/ready`; 0 opens none."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65_535)


class EventsSection(Section):
    """`[events]`: facts for SQL and charts. Every `sample_interval_s` each instance samples its host."""

    enabled: bool = True
    sample_interval_s: float = Field(default=10.0, ge=0.1)


class OtlpSection(Section):
    """`[otlp]`: an OpenTelemetry collector that also gets the spans, such as `http://127.0.0.1:4318`."""

    endpoint: str | None = Field(default=None, pattern=r"^https?://\S+$")


def config_path() -> Path | None:
    """The choir.toml that applies here.

    Raises ConfigurationError if `CHOIR_CONFIG` names a missing file, or if the one in the working directory
    is another user's: it says where prompts and passwords are sent.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        path = Path(named)
        if not path.is_file():
            raise ConfigurationError(f"{CONFIG_VARIABLE} names {named}, and there is no such file")
        return path
    if not DEFAULT_CONFIG.is_file():
        return None
    _require_own(DEFAULT_CONFIG)
    return DEFAULT_CONFIG


def _require_own(path: Path) -> None:
    found = path.stat()
    trusted = hasattr(os, "geteuid") and found.st_uid in (0, os.geteuid())
    if hasattr(os, "geteuid") and (not trusted or found.st_mode & stat.S_IWOTH):
        why = "can be written by every user" if trusted else "belongs to another user"
        raise ConfigurationError(
            f"{path.absolute()} {why}, so it is not read: name it in {CONFIG_VARIABLE} if you trust it"
        )


class ServiceSettings(BaseSettings):
    """What every service can be told. Sections of other services in the same file are passed over."""

    model_config = SettingsConfigDict(
        env_prefix="CHOIR_", env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    mesh: MeshSection = MeshSection()
    logging: LoggingSection = LoggingSection()
    health: HealthSection = HealthSection()
    events: EventsSection = EventsSection()
    otlp: OtlpSection = OtlpSection()
    instance: str | None = None
    host_id: str | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then the file."""
        path = config_path()
        toml = () if path is None else (TomlConfigSettingsSource(settings_cls, toml_file=path),)
        return (init_settings, env_settings, *toml)


SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def load_settings(settings: type[SettingsT]) -> SettingsT:
    """The settings of a service; ConfigurationError with the section, the key and what is wrong there."""
    try:
        return settings()
    except ValidationError as error:
        faults = faults_of(error, settings)
        raise ConfigurationError(describe(faults), field=faults[0][0] or None) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{config_path()}: it is no text") from error
    except ValueError as error:  # not TOML, or an environment variable that is not JSON
        raise ConfigurationError(f"{config_path() or 'environment'}: {error}") from error


def forget_secrets() -> None:
    """Takes what only settings may know out of this process's environment: no child, no library and no
    setting that names a variable finds it any more."""
    for name in [name for name in os.environ if name.upper() in SECRET_VARIABLES]:
        del os.environ[name]


def describe(faults: Iterable[tuple[str, str]]) -> str:
    """One line that names every wrong setting, and the file."""
    said = (f"{setting}: {what}" if setting else what for setting, what in faults)
    return f"{config_path() or 'environment'}: " + "; ".join(said)

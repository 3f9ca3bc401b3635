"""Settings of the model store: section `[modelstore]`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from services.chassis.settings import Section, ServiceSettings

DEFAULT_FOLDER = Path(".choir/models")
DEFAULT_HUB = "https://huggingface.co"
GIB = 1024**3


class ModelStoreSection(Section):
    """`enabled` says whether this host has a store.

    `folder` holds what was pulled; `choir up` puts it into its state folder, and a relative path starts at
    the working directory. It takes at most `budget_bytes`, where that is set, and leaves `min_free_bytes` of
    its disk. Files that were added where they lie count for neither. A pull that nobody sends anything for
    `patience_s` ends with an error, and goes on from there when it is asked for again.

    `hub` is where `choir pull hf:...` fetches from, a mirror perhaps, with `token`, or the first line of
    `token_file`, where that is needed. The token goes to that host alone. A hub at `https` may lead on to
    any other host at `https`; to a host without, only to those in `redirects`.

    Whoever computes answers has the processor before the store, which gives way by this `niceness`: what is
    copied takes longer then. With 0 all are alike.
    """

    enabled: bool = True
    folder: Path = DEFAULT_FOLDER
    budget_bytes: int | None = Field(default=None, ge=1)
    min_free_bytes: int = Field(default=GIB, ge=0)
    patience_s: float = Field(default=120.0, gt=0)
    hub: str = Field(default=DEFAULT_HUB, pattern=r"^https?://[^\s/@]+(/\S*)?$")
    token: SecretStr | None = None
    token_file: Path | None = None
    redirects: tuple[str, ...] = ()
    niceness: int = Field(default=10, ge=0, le=19)

    @field_validator("token")
    @classmethod
    def _none_if_empty(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value is not None and value.get_secret_value().strip() else None


class ModelStoreSettings(ServiceSettings):
    """What a model store can be told."""

    modelstore: ModelStoreSection = ModelStoreSection()

"""Models that the mesh keeps: what a model is made of, who holds its files, and what a store is asked.

A file is known by the SHA-256 of its content. It is verified chunk by chunk; a chunk is a power of two of
bytes, and the last one is what is left.
"""

from __future__ import annotations

import base64
from operator import not_
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from schemas.errors import ErrorBody
from schemas.message import Act, Message, Name, Struct, field_error, is_none

HASH_BYTES = 32
MAX_FILES = 512
MAX_CHUNKS = 8_192
MIN_CHUNK_BYTES = 1 << 16
MAX_RANGE_BYTES = 1 << 20
MAX_LICENCE_CHARACTERS = 32_768
MAX_COPIES = 64
STORE_PREFIX = "store:"
"""Before the name of a model of the store where a path could stand."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(max_length=1_024, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


def _no_way_out(name: str) -> str:
    if name == "." or ".." in name:
        raise PydanticCustomError("unsafe_name", "a name may not be, or hold, `..`")
    return name


ModelName = Annotated[
    Name,
    StringConstraints(pattern=r"^[^/\\]+$"),
    AfterValidator(_no_way_out),
]
"""What a model is called: no blank, no control character, no `/`, no `\\`, no `..`."""
FileName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255, pattern=r"^[^/\\\x00-\x1f\x7f-\x9f]+$"),
    AfterValidator(_no_way_out),
]
"""What a file is called, without a folder."""

OriginKind = Literal["local", "ollama", "hugging_face"]


class Origin(Struct):
    """Where a model came from: a path of a host, a name in an Ollama folder, or a repository at a
    revision."""

    kind: OriginKind
    place: Text
    revision: Text | None = None


class ModelFile(Struct):
    """One file of a model. The parts of a split model are in their order."""

    name: FileName
    size_bytes: Annotated[int, Field(ge=1)]
    sha256: Sha256


class StoredModel(Message):
    """An entry of the bucket of models: what a model is, as its files say. `licence_text` may be cut. Of a
    model in several files `joined_sha256` is the SHA-256 of all of them, one after another, once a store has
    read them.

    There should be at least `min_copies` of it, on so many hosts, and no store makes more than `max_copies`.
    """

    name: ModelName
    files: Annotated[tuple[ModelFile, ...], Field(min_length=1, max_length=MAX_FILES)]
    architecture: Text
    layers: int | None = None
    parameters: int | None = None
    context_tokens: int | None = None
    quantisation: Text | None = None
    licence: Text | None = None
    licence_text: Annotated[str, StringConstraints(max_length=MAX_LICENCE_CHARACTERS)] | None = None
    origin: Origin
    added_at_s: float
    min_copies: Annotated[int, Field(ge=1, le=MAX_COPIES)] = 1
    max_copies: Annotated[int, Field(ge=1, le=MAX_COPIES)] = MAX_COPIES
    joined_sha256: Annotated[Sha256 | None, Field(exclude_if=is_none)] = None

    @property
    def size_bytes(self) -> int:
        """All of its files together."""
        return sum(file.size_bytes for file in self.files)

    @property
    def whole_sha256(self) -> str | None:
        """The SHA-256 of its bytes, all files one after another, by which answers and plans name a model.
        None for one in several files of which no store has said that."""
        return self.files[0].sha256 if len(self.files) == 1 else self.joined_sha256


class FileChunks(Message):
    """An entry of the bucket of files: the SHA-256 of every chunk, one after another, as base64."""

    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=1)]
    chunk_bytes: Annotated[int, Field(ge=MIN_CHUNK_BYTES)]
    hashes: str

    @model_validator(mode="after")
    def _consistent(self) -> FileChunks:
        if self.chunk_bytes & (self.chunk_bytes - 1):
            raise field_error("chunk_bytes", "not a power of two")
        if self.count > MAX_CHUNKS or len(self.digests) != self.count * HASH_BYTES:
            raise field_error("hashes", "not a hash for each chunk")
        return self

    @property
    def count(self) -> int:
        """How many chunks there are."""
        return -(-self.size_bytes // self.chunk_bytes)

    @property
    def digests(self) -> bytes:
        """The hashes, 32 bytes for each chunk."""
        try:
            return base64.b64decode(self.hashes, validate=True)
        except ValueError as error:
            raise field_error("hashes", "not base64") from error


class FileCopy(Message):
    """An entry of the bucket of copies: a store holds a file, all of it or what it has fetched of it."""

    sha256: Sha256
    instance: Name
    host: str
    whole: bool = True
    at_s: float


class FetchClaim(Message):
    """An entry of the bucket of fetches: the store that fetches a file from outside, for all others."""

    sha256: Sha256
    instance: Name


class ReadRange(Message):
    """A store is asked for bytes of a file: the reply is these bytes and nothing else, or an ErrorReply."""

    sha256: Sha256
    offset: Annotated[int, Field(ge=0)]
    length: Annotated[int, Field(ge=1, le=MAX_RANGE_BYTES)]


class ListHeld(Message):
    """An agent asks the store of its host which models lie there whole, and where."""


class HeldModel(Struct):
    """A model that a host holds: its files lie at `paths` of that host, the parts of a split one in their
    order. The first one's content has the `sha256`, and it is called `file`; of several files `joined_sha256`
    is that of all of them, one after another. `repository` is that of the hub that it comes from."""

    name: ModelName
    file: FileName
    paths: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_FILES)]
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=1)]
    parameters: int | None = None
    quantisation: Text | None = None
    repository: Annotated[Text | None, Field(exclude_if=is_none)] = None
    joined_sha256: Annotated[Sha256 | None, Field(exclude_if=is_none)] = None


class HeldModels(Message):
    """All models that a host holds; `left_out` counts those for which the reply had no room."""

    models: tuple[HeldModel, ...] = ()
    left_out: int | None = None


JobState = Literal["waiting", "running", "done", "failed"]


class StoreJob(Struct):
    """What a store does that takes long: it adds files (`add`), or fetches them (`pull`).

    `done_bytes` of `total_bytes` are verified, at `bytes_per_s` lately. `problem` says why it waits or has
    failed. A pull tells the `sha256` of the model's first file once it is known.
    """

    id: Name
    kind: Literal["add", "pull"]
    model: Text
    instance: Name
    host: str
    state: JobState = "waiting"
    done_bytes: Annotated[int, Field(ge=0)] = 0
    total_bytes: Annotated[int, Field(ge=0)] = 0
    bytes_per_s: Annotated[float, Field(ge=0)] = 0.0
    models: tuple[str, ...] = ()
    problem: ErrorBody | None = None
    sha256: Annotated[Sha256 | None, Field(exclude_if=is_none)] = None

    @property
    def left_s(self) -> float | None:
        """How long it takes still, at the speed of now; None if nobody can say."""
        return (self.total_bytes - self.done_bytes) / self.bytes_per_s if self.bytes_per_s else None


class ModelCopy(Struct):
    """A host that holds a model: all of it if `whole`. `live` says whether its store answers now."""

    instance: Name
    host: str
    whole: bool
    live: bool


class CopyPlace(Struct):
    """A host that has no copy of a model of which there are too few, and what speaks against one there.

    Without `lacks` it is a good place. One without room on its `disk` makes none: it may still write
    `has_bytes`. One where nobody can serve the model is the last choice: no agent or stage there takes it
    from the store (`server`), or those that do have `has_bytes` of `memory`, less than the weights take.
    """

    instance: Name
    host: str
    lacks: Literal["disk", "memory", "server"] | None = None
    has_bytes: int | None = None


class StoreEntry(Struct):
    """A model of the store, and who has it. If there are too few copies, `places` are the hosts that could
    make one, whoever is next before the others."""

    model: StoredModel
    copies: tuple[ModelCopy, ...] = ()
    places: Annotated[tuple[CopyPlace, ...], Field(exclude_if=not_)] = ()

    @property
    def missing(self) -> int:
        """How many copies there are too few, of those that are there now."""
        return max(0, self.model.min_copies - sum(copy.whole and copy.live for copy in self.copies))


class StoreSpace(Struct):
    """The room of one store: what its own files take, and what it may take besides."""

    instance: Name
    host: str
    used_bytes: int
    free_bytes: int


class ManageStore(Message):
    """A client looks into the store, or has it do something.

    `list` and `show` (with a `name`) look. `add` takes the `path` of a file or folder on the host of `store`,
    an Ollama folder or a cache of Hugging Face among them. `pull` has the store fetch the model `name`, from
    other hosts, or from a hub where `name` is `hf:org/repository[:quantisation]`. `remove` has it forget its
    copy, or all stores theirs with `everywhere`. `copies` says how many there ought to be. `jobs` tells how
    far they are, and `cancel` ends one.
    `store` is the instance, or the host, that is to do it.
    """

    action: Literal["list", "show", "add", "pull", "remove", "copies", "jobs", "cancel"] = "list"
    store: str | None = None
    name: Text | None = None
    path: Text | None = None
    job: Name | None = None
    min_copies: Annotated[int, Field(ge=1, le=MAX_COPIES)] | None = None
    max_copies: Annotated[int, Field(ge=1, le=MAX_COPIES)] | None = None
    everywhere: Annotated[bool, Field(exclude_if=not_)] = False
    forwarded: Annotated[bool, Field(exclude_if=not_)] = False

    @model_validator(mode="after")
    def _consistent(self) -> ManageStore:
        if self.action in ("show", "pull", "remove", "copies") and not self.name:
            raise field_error("name", f"{self.action} needs the name of a model")
        if (self.action == "add") != (self.path is not None):
            raise field_error("path", "add, and nothing else, needs a path")
        if self.action == "cancel" and self.job is None:
            raise field_error("job", "cancel needs the id of a job")
        return self

    def act(self) -> Act | None:
        """As the base class says."""
        looks = self.action in ("list", "show", "jobs")
        return None if looks else Act(self.action, self.name or self.path or self.job)


class StoreReply(Message):
    """What a store says: the models that are meant, and the jobs. `left_out` counts models without room."""

    models: tuple[StoreEntry, ...] = ()
    jobs: tuple[StoreJob, ...] = ()
    spaces: tuple[StoreSpace, ...] = ()
    left_out: int | None = None

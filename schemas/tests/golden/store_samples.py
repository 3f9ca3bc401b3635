"""Samples of the messages about models that the mesh keeps."""

from __future__ import annotations

import base64

from schemas.errors import ErrorBody
from schemas.message import Message
from schemas.nodes.model_store import (
    CopyPlace,
    FetchClaim,
    FileChunks,
    FileCopy,
    HeldModel,
    HeldModels,
    ListHeld,
    ManageStore,
    ModelCopy,
    ModelFile,
    Origin,
    ReadRange,
    StoredModel,
    StoreEntry,
    StoreJob,
    StoreReply,
    StoreSpace,
)

SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
STORE = "attic-1a2b-modelstore"
MODEL = StoredModel(
    name="llama3.2:3b",
    files=(
        ModelFile(name="llama-00001-of-00002.gguf", size_bytes=100_000, sha256=SHA256),
        ModelFile(name="llama-00002-of-00002.gguf", size_bytes=70_000, sha256=SHA256[::-1]),
    ),
    architecture="llama",
    layers=28,
    parameters=3_212_749_888,
    context_tokens=131_072,
    quantisation="Q4_K_M",
    licence="llama3.2",
    licence_text="LLAMA 3.2 COMMUNITY LICENSE AGREEMENT",
    origin=Origin(kind="hugging_face", place="org/llama-gguf", revision="0123abcd"),
    added_at_s=1_700_000_000.5,
    min_copies=2,
    max_copies=3,
)
STORE_SAMPLES: dict[str, Message] = {
    "stored_model": MODEL,
    "stored_model_read_in_parts": MODEL.model_copy(update={"joined_sha256": "5e" * 32}),
    "file_chunks": FileChunks(
        sha256=SHA256,
        size_bytes=100_000,
        chunk_bytes=65_536,
        hashes=base64.b64encode(bytes(range(64))).decode(),
    ),
    "file_copy": FileCopy(sha256=SHA256, instance=STORE, host="attic", whole=False, at_s=1_700_000_000.5),
    "fetch_claim": FetchClaim(sha256=SHA256, instance=STORE),
    "read_range": ReadRange(sha256=SHA256, offset=65_536, length=34_464),
    "list_held": ListHeld(),
    "held_models": HeldModels(
        models=(
            HeldModel(
                name="llama3.2:3b",
                file="llama-3.2-3b.gguf",
                paths=("/srv/models/llama-3.2-3b.gguf",),
                sha256=SHA256,
                size_bytes=170_000,
                parameters=3_212_749_888,
                quantisation="Q4_K_M",
                repository="meta-llama/Llama-3.2-3B-GGUF",
            ),
        ),
        left_out=1,
    ),
    "held_models_in_parts": HeldModels(
        models=(
            HeldModel(
                name="llama3.2:3b",
                file="llama-00001-of-00002.gguf",
                paths=("/srv/models/llama-00001-of-00002.gguf", "/srv/models/llama-00002-of-00002.gguf"),
                sha256=SHA256,
                size_bytes=170_000,
                joined_sha256="5e" * 32,
            ),
        ),
    ),
    "manage_store": ManageStore(
        action="copies", store=STORE, name="llama3.2:3b", min_copies=2, max_copies=3, forwarded=True
    ),
    "add_to_store": ManageStore(action="add", path="/srv/models", name="llama3.2:3b"),
    "remove_from_store": ManageStore(action="remove", name="llama3.2:3b", everywhere=True),
    "cancel_store_job": ManageStore(action="cancel", job="j-1"),
    "store_reply": StoreReply(
        models=(
            StoreEntry(
                model=MODEL,
                copies=(ModelCopy(instance=STORE, host="attic", whole=True, live=True),),
                places=(
                    CopyPlace(instance="cellar-store", host="cellar"),
                    CopyPlace(instance="loft-store", host="loft", lacks="memory", has_bytes=1_000_000),
                ),
            ),
        ),
        jobs=(
            StoreJob(
                id="j-1",
                kind="pull",
                model="llama3.2:3b",
                instance=STORE,
                host="attic",
                state="failed",
                done_bytes=65_536,
                total_bytes=170_000,
                bytes_per_s=1_000.5,
                models=("llama3.2:3b",),
                problem=ErrorBody(code="no_room", message="no room", field="budget_bytes"),
            ),
        ),
        spaces=(StoreSpace(instance=STORE, host="attic", used_bytes=170_000, free_bytes=1_000_000),),
        left_out=1,
    ),
    "store_reply_of_a_pull": StoreReply(
        jobs=(
            StoreJob(
                id="j-2",
                kind="pull",
                model="hf:org/little-GGUF",
                instance=STORE,
                host="attic",
                sha256="0f" * 32,
            ),
        ),
    ),
}

"""The plan of a batch: its documents, prompts and options, and the tasks that they make."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.cli.batch.documents.files import Document
from services.cli.batch.prompts import Prompt
from services.client.request_builder import AskOptions


@dataclass(frozen=True, slots=True)
class BatchTask:
    """One prompt about one document."""

    document: Document
    prompt: Prompt

    @property
    def key(self) -> str:
        """What the task is called in the journal."""
        return f"{self.prompt.name}:{self.document.name}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A batch. `models` are those that may answer, none for all; `outputs` are the files of its results."""

    documents: tuple[Document, ...]
    prompts: tuple[Prompt, ...]
    models: tuple[str, ...]
    outputs: tuple[Path, ...]
    options: AskOptions
    max_concurrent: int | None = None

    def __len__(self) -> int:
        return len(self.documents) * len(self.prompts)

    def tasks(self) -> Iterator[BatchTask]:
        """All tasks; those of one document follow one another."""
        return (BatchTask(document, prompt) for document in self.documents for prompt in self.prompts)

    @property
    def journal(self) -> Path:
        """Where the batch keeps what it has done: beside its first output."""
        first = self.outputs[0]
        return first.with_name(f".{first.name}.journal")

    @property
    def settings(self) -> str:
        """A digest of all that makes two batches the same one: prompts, models and sampler options.

        Documents may come and go, and how long to wait may change.
        """
        options = {name: value for name, value in self.options.items() if name != "timeout_s"}
        said = [[(prompt.name, prompt.template) for prompt in self.prompts], self.models, options]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]

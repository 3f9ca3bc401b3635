"""Files that come in pieces, files that lie, and where models are found."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

import gguf
import pytest
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

from infra.testing.plugin import fill_disk
from schemas.errors import InvalidRequest, ModelUnusable, NoRoom, PullFailed
from schemas.nodes.model_store import ManageStore
from services.chassis.blobs.chunks import ChunkTable
from services.chassis.identity import Identity
from services.modelstore.catalogue.gguf_facts import facts_of
from services.modelstore.catalogue.sources import found_at
from services.modelstore.files.hashing import hashed
from services.modelstore.files.known_files import KnownFile, KnownFiles
from services.modelstore.files.partial_file import PartialFile
from services.modelstore.jobs.job import Job
from services.modelstore.jobs.queue import JobQueue
from services.modelstore.tests.stores import small_model

CONTENT = bytes(range(256)) * 1_000
CHUNK = 65_536
LICENCE = "Apache License\n\n\tCopyright [yyyy] [name of copyright owner]\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model."""
    return small_model(tmp_path_factory.mktemp("model") / "little.gguf")


def test_a_hostile_file_is_refused_with_what_is_wrong(model: Path, tmp_path: Path) -> None:
    whole = model.read_bytes()
    version = struct.unpack_from("<I", whole, 4)[0]
    many = b"GGUF" + struct.pack("<IQQ", version, 10**12, 1) + whole[24:]
    hostile = {
        "tensors": many,
        "past the end": whole[:-70_000],
        "does not begin with": b"<html>" + whole,
        "the file ends inside": whole[:100],
        "metadata entries": b"GGUF" + struct.pack("<IQQ", version, 1, 10**12) + whole[24:],
    }
    path = tmp_path / "hostile.gguf"
    for said, content in hostile.items():
        path.write_bytes(content)
        with pytest.raises(ModelUnusable, match=said) as refused:
            facts_of([path])
        assert refused.value.field == "path"
    with pytest.raises(ModelUnusable, match=r"split\.no and split\.count are None"):
        facts_of([model, model])


def test_a_file_says_its_licence_with_its_text(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "licenced.gguf"
    text = gguf.GGUFValueType.STRING
    facts = {"general.license": "apache-2.0", "general.license.text": LICENCE}
    writer = gguf.GGUFWriter(path, "llama")
    added = {key: MetadataDetails(text, value) for key, value in facts.items()}
    copy_with_new_metadata(gguf.GGUFReader(model), writer, added, [])
    found = facts_of([path])
    assert (found.licence, found.licence_text) == ("apache-2.0", LICENCE)
    assert (facts_of([model]).licence, facts_of([model]).licence_text) == (None, None)


def test_a_file_goes_on_after_a_kill_and_believes_the_hashes_alone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    table = ChunkTable(hashed(source))
    part = PartialFile(tmp_path, table.sha256, len(CONTENT))
    part.write(range(2), CONTENT[: 2 * CHUNK], table)
    part.close()
    # Given a disk that has lost what the journal names, and a line that was cut off
    with part.path.open("r+b") as file:
        file.seek(CHUNK)
        file.write(b"other")
    with (tmp_path / f"{table.sha256}.journal").open("ab") as journal:
        journal.write(b"cut off")

    again = PartialFile(tmp_path, table.sha256, len(CONTENT))
    again.resume(table)
    assert again.missing() == [1, 2, 3]
    for chunk in again.missing():
        again.write(range(chunk, chunk + 1), CONTENT[chunk * CHUNK : (chunk + 1) * CHUNK], table)
    assert again.check().sha256 == table.sha256
    again.finish(tmp_path / "blobs" / "final")
    assert (tmp_path / "blobs" / "final").read_bytes() == CONTENT
    assert not list(tmp_path.glob(f"{table.sha256}.*"))


def test_what_is_not_what_it_was_to_be_is_not_kept(tmp_path: Path) -> None:
    part = PartialFile(tmp_path, "0" * 64, len(CONTENT))
    part.write(range(4), CONTENT)
    with pytest.raises(PullFailed, match=hashlib.sha256(CONTENT).hexdigest()):
        part.check()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_what_has_come_counts_later(disk: Path) -> None:
    part = PartialFile(disk, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    part.write(range(1), CONTENT[:CHUNK])
    filler = fill_disk(disk)
    with pytest.raises(NoRoom, match="is full") as full:
        part.write(range(1, 4), CONTENT[CHUNK:])
    assert full.value.field == "folder"
    part.close()
    filler.unlink()
    again = PartialFile(disk, part.sha256, len(CONTENT))
    again.resume(None)
    assert 0 not in again.missing()
    again.close()


async def test_a_full_disk_refuses_a_job_and_forgets_no_file_that_has_come(disk: Path) -> None:
    path = disk / "come"
    path.write_bytes(CONTENT)
    chunks = hashed(path)
    known = KnownFiles(disk / "known")
    known.load()

    async def work(_job: Job) -> None:
        raise AssertionError("nobody may begin what is not written down")

    jobs = JobQueue(disk / "jobs", Identity.of("modelstore", "here"), work)
    jobs.start()
    filler = fill_disk(disk)
    with pytest.raises(NoRoom, match="is full"):
        await jobs.add(ManageStore(action="pull", name="m"))
    known.put(path, chunks, own=True)
    held = known.get(chunks.sha256)
    assert held is not None and held.path == path
    assert not list((disk / "jobs").iterdir()) and not list((disk / "known").iterdir())
    filler.unlink()


def test_a_file_that_has_changed_is_given_to_nobody(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    known = KnownFiles(tmp_path / "known")
    known.load()
    chunks = hashed(path)
    known.put(path, chunks, own=False)
    assert known.same_as(path) == chunks and known.get(chunks.sha256) is not None
    path.write_bytes(CONTENT[::-1])
    assert known.same_as(path) is None and known.get(chunks.sha256) is None
    # What is known is known after a start as well, and a file that was added is never deleted
    again = KnownFiles(tmp_path / "known")
    again.load()
    assert [one.path for one in again.all] == [path]
    again.forget(chunks.sha256)
    assert path.is_file() and not list((tmp_path / "known").iterdir())


def test_a_file_that_comes_while_another_is_looked_up_disturbs_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs of a store look and write in threads of their own."""
    paths = [tmp_path / name for name in ("one", "two", "three")]
    for number, path in enumerate(paths):
        path.write_bytes(CONTENT + bytes([number]))
    known = KnownFiles(tmp_path / "known")
    known.load()
    for path in paths[:2]:
        known.put(path, hashed(path), own=True)
    third, is_still = hashed(paths[2]), KnownFile.is_still

    def put_meanwhile(one: KnownFile, found: os.stat_result) -> bool:
        monkeypatch.undo()
        known.put(paths[2], third, own=True)
        return is_still(one, found)

    monkeypatch.setattr(KnownFile, "is_still", put_meanwhile)
    assert known.same_as(paths[1]) == hashed(paths[1])
    assert known.own_bytes == 3 * (len(CONTENT) + 1)


def test_models_are_found_where_people_have_them(model: Path, tmp_path: Path) -> None:
    content = model.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    # An Ollama folder
    ollama = tmp_path / "ollama"
    manifest = ollama / "manifests" / "registry.ollama.ai" / "library" / "llama3.2" / "3b"
    manifest.parent.mkdir(parents=True)
    (ollama / "blobs").mkdir()
    (ollama / "blobs" / f"sha256-{digest}").write_bytes(content)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    licences = [f"LICENCE {number}\n\x1b[31m".encode() for number in (1, 2)]
    layers = [layer]
    for text in licences:
        name = hashlib.sha256(text).hexdigest()
        (ollama / "blobs" / f"sha256-{name}").write_bytes(text)
        kind = "application/vnd.ollama.image.license"
        layers.append({"mediaType": kind, "digest": f"sha256:{name}"})
    manifest.write_text(json.dumps({"layers": layers}))
    (found,) = found_at(ollama)
    assert found.licence_text == "LICENCE 1\n[31m\n\nLICENCE 2\n[31m"
    assert (found.name, found.origin.kind) == ("llama3.2:3b", "ollama")
    assert found.files[0][1] == ollama / "blobs" / f"sha256-{digest}"
    manifest.write_text(json.dumps({"layers": [{**layer, "digest": "sha256:../../etc/passwd"}]}))
    with pytest.raises(ModelUnusable, match="no SHA-256"):
        found_at(ollama)
    # The cache of Hugging Face
    snapshot = tmp_path / "hub" / "models--org--little" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "little-Q8_0.gguf").symlink_to(model)
    (snapshot / "LICENSE.txt").write_text("Apache License")
    (found,) = found_at(tmp_path / "hub")
    assert found.licence_text == "Apache License"
    assert (found.name, found.origin.place, found.origin.revision) == ("little-Q8_0", "org/little", "0123")
    # A split model, whole and with a part that is missing
    folder = tmp_path / "split"
    folder.mkdir()
    for number in (1, 2):
        (folder / f"big-0000{number}-of-00002.gguf").write_bytes(content)
    (found,) = found_at(folder)
    assert (found.name, [name for name, _ in found.files]) == (
        "big",
        ["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"],
    )
    (folder / "big-00002-of-00002.gguf").unlink()
    with pytest.raises(ModelUnusable, match=r"big-00002-of-00002\.gguf is missing"):
        found_at(folder / "big-00001-of-00002.gguf")
    with pytest.raises(InvalidRequest, match="path"):
        found_at(tmp_path / "nowhere")

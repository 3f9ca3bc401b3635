"""What a person sees of a pull, and of copies that are missing."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from nats.aio.client import Client

from infra.testing.choir_up import choir_command, clean_environment
from infra.testing.plugin import SpawnService
from schemas.nodes.model_store import ManageStore
from services.cli.tests.pseudo_terminal import on_terminal
from services.client.client import Choir
from services.modelstore.jobs import job
from services.modelstore.tests.holder import Holder
from services.modelstore.tests.stores import small_model, store_elsewhere, whole_files

GIVEN = 6
COLUMNS = 80


async def test_a_pull_shows_how_fast_it_goes_and_choir_models_which_copies_are_missing(
    mesh_url: str,
    connection: Client,
    spawn_service: SpawnService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    router = spawn_service("router", "router-1")
    # Given a holder that gives no more for now, and a machine on which that may take long
    monkeypatch.setattr(job, "SPEED_WINDOW_S", 600.0)
    model = small_model(tmp_path / "a-model-with-a-long-name-that-would-not-fit.gguf", layers=8, width=256)
    holder = Holder(connection, "first", tmp_path, most=GIVEN)
    await holder.hold(model)

    env = clean_environment(tmp_path / "state", CHOIR_MESH__URL=mesh_url)

    def pulled() -> tuple[int, str]:
        command = [*choir_command(), "pull", model.stem, "--store", "attic"]
        with on_terminal(command, env, columns=COLUMNS) as terminal:
            terminal.wait_for(" left")
            holder.go_on.set()
            return terminal.exit_code(), terminal.text

    async with store_elsewhere(mesh_url, "attic", tmp_path / "attic"):
        code, text = await asyncio.to_thread(pulled)
        # When there is to be a copy more than there are hosts
        async with Choir(mesh_url) as choir:
            await choir.store(ManageStore(action="copies", store="attic", name=model.stem, min_copies=2))
        await router.wait_ready(connection)
        models = [*choir_command(), "models"]
        shown = await asyncio.to_thread(
            subprocess.run, models, env=env, capture_output=True, text=True, check=False
        )
    # Then one line says both, until the file is there
    assert code == 0, text
    lines = text.replace("\r", "\n").splitlines()
    (last,) = [line for line in lines if line.startswith("pulled ")]
    assert last.startswith(f"pulled {model.stem}: 1 model")
    told = next(line for line in lines if " left" in line)
    size = f"{model.stat().st_size / 1e6:.1f} MB"
    assert told.startswith("pull a-model-") and f" of {size} (" in told and "/s, " in told
    assert max(map(len, lines)) <= COLUMNS, lines
    assert list(whole_files(tmp_path / "attic").values()) == [model.read_bytes()]
    # And what the models of the mesh are says why there are too few
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[-2:] == [
        f"{model.stem}: 1 copy is missing",
        "  there is no other host with a store",
    ]
    await holder.stop()

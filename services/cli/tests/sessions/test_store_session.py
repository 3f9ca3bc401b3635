"""What a person sees of a pull."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nats.aio.client import Client

from infra.testing.choir_up import choir_command, clean_environment
from services.cli.tests.pseudo_terminal import on_terminal
from services.modelstore.jobs import job
from services.modelstore.tests.holder import Holder
from services.modelstore.tests.stores import small_model, store_elsewhere, whole_files

GIVEN = 6
COLUMNS = 80


async def test_a_pull_shows_how_fast_it_goes_and_how_long_it_takes_still(
    mesh_url: str, connection: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a holder that gives no more for now, and a machine on which that may take long
    monkeypatch.setattr(job, "SPEED_WINDOW_S", 600.0)
    model = small_model(tmp_path / "a-model-with-a-long-name-that-would-not-fit.gguf", layers=8, width=256)
    holder = Holder(connection, "first", tmp_path, most=GIVEN)
    await holder.hold(model)

    def pulled() -> tuple[int, str]:
        command = [*choir_command(), "pull", model.stem, "--store", "attic"]
        env = clean_environment(tmp_path / "state", CHOIR_MESH__URL=mesh_url)
        with on_terminal(command, env, columns=COLUMNS) as terminal:
            terminal.wait_for(" left")
            holder.go_on.set()
            return terminal.exit_code(), terminal.text

    async with store_elsewhere(mesh_url, "attic", tmp_path / "attic"):
        code, text = await asyncio.to_thread(pulled)
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
    await holder.stop()

"""A host whose services are of an older version for a while, as in the midst of an upgrade."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

import schemas
from infra.host.children.child import ServiceCommand
from infra.host.children.forked import ForkServer
from infra.testing.networks import NEEDED, allowed
from loadtest.trial.__main__ import main
from loadtest.trial.upgrading import with_schemas_of
from loadtest.trial.versions import older_schemas

WHOSE = "import schemas.message as m; print(m.__file__, type(m.Struct).__name__)"
PRESENT = Path(schemas.__file__).resolve().parent


async def whose_schemas(service: str) -> list[str]:
    """Where a process that a supervisor starts as this service has its schemas from, and their metaclass."""
    command = ServiceCommand(service, service, [sys.executable, "-P", "-c", WHOSE], dict(os.environ))
    process = await ForkServer(print).start(command)
    assert process.stdout is not None
    said = (await process.stdout.read()).decode()
    assert await process.wait() == 0, said
    return said.split()


async def test_services_have_the_older_schemas_for_as_long_as_a_folder_leads_to_them(tmp_path: Path) -> None:
    version, older = tmp_path / "version", older_schemas(tmp_path)
    present = [str(PRESENT / "message.py"), "ModelMetaclass"]
    with with_schemas_of(version):
        assert await whose_schemas("agent") == present
        version.symlink_to(older)
        # And once a process runs, the folder may lead elsewhere
        assert await whose_schemas("agent") == [str(older / "schemas" / "message.py"), "FirstForm"]
        assert await whose_schemas("metrics") == present
        version.unlink()
        assert await whose_schemas("agent") == present


@pytest.mark.soak
@pytest.mark.alone
def test_a_host_that_is_set_back_and_upgraded_again_under_load_loses_nothing(
    capsys: pytest.CaptureFixture[str], fault_seed: int
) -> None:
    if not allowed():
        pytest.skip(NEEDED)
    kinds = ("--kinds", "mixed-versions", "--requests", "900", "--rate", "10")
    code = main([*kinds, "--json", "--seed", str(fault_seed)])
    figures = json.loads(capsys.readouterr().out)
    assert code == 0, json.dumps(figures)
    (mixed,) = figures["mixed_versions"]
    assert mixed["services"] > 0
    assert mixed["older"] == mixed["present"] == mixed["services"], json.dumps(figures)

"""The tables that are generated into the README."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from infra.docs import BEGIN, END, duration, main, size, subjects_section, with_section
from schemas import catalog
from schemas.errors import ConfigurationError

APP = Typer()
APP.command()(main)


def run(*arguments: str) -> tuple[int, str]:
    """The command's exit code and output."""
    result = CliRunner().invoke(APP, list(arguments))
    return result.exit_code, result.output


def test_every_subject_stream_bucket_and_service_is_in_the_tables() -> None:
    section = subjects_section()
    names = [
        *(endpoint.subject for endpoint in catalog.ENDPOINTS),
        *(subject for spec in catalog.STREAMS for subject in (spec.name, *spec.subjects)),
        *(spec.name for spec in catalog.BUCKETS),
    ]
    assert [name for name in names if f"`{name}`" not in section] == []
    assert all(f"| {access.service} |" in section for access in catalog.ACCESS)


def test_a_stale_file_is_noticed_and_rewritten_and_the_rest_of_it_stays(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nstale\n{END}\nafter\n")
    assert run("--check", "--readme", str(readme))[0] == 1
    assert run("--readme", str(readme))[0] == 0
    assert run("--check", "--readme", str(readme))[0] == 0
    text = readme.read_text()
    assert text.startswith(f"before\n{BEGIN}\n") and text.endswith(f"{END}\nafter\n") and "stale" not in text


def test_a_file_without_markers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no <!-- subjects:begin"):
        with_section("no markers here")


def test_the_readme_says_what_the_catalog_says() -> None:
    assert run("--check") == (0, "README.md is up to date\n")


def test_times_and_sizes_are_written_as_people_say_them() -> None:
    assert [duration(s) for s in (0, 8, 600, 3600, 86_400, 7 * 86_400)] == [
        "-",
        "8 s",
        "10 min",
        "1 h",
        "24 h",
        "7 d",
    ]
    assert [size(n) for n in (0, 64 * catalog.MIB, 2048 * catalog.MIB)] == ["-", "64 MiB", "2 GiB"]

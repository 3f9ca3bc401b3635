"""The tables that are generated into the READMEs."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from infra.docs.file_tables import files_section, first_sentence
from infra.docs.readmes import PACKAGES, ROOT, duration, main, size, subjects_section, with_section
from schemas.broker import catalog
from schemas.errors import ConfigurationError

APP = Typer()
APP.command()(main)


def run(*arguments: str) -> tuple[int, str]:
    """The command's exit code and output."""
    result = CliRunner().invoke(APP, list(arguments))
    return result.exit_code, result.output


def write(path: Path, text: str) -> None:
    """A file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A main README and one package `services/bakery`, with a wing and tests; both READMEs are stale."""
    write(tmp_path / "README.md", "before\n<!-- subjects:begin -->\nstale\n<!-- subjects:end -->\nafter\n")
    bakery = tmp_path / "services" / "bakery"
    write(bakery / "README.md", "before\n<!-- files:begin -->\nstale\n<!-- files:end -->\nafter\n")
    write(bakery / "__init__.py", '"""The bakery."""\n')
    write(bakery / "oven.py", '"""Bakes a|b,\nwarm. Cold ones too."""\n')
    write(bakery / "shop" / "__init__.py", '"""Sells what was baked."""\n')
    write(bakery / "shop" / "till.py", '"""Counts what comes in."""\n')
    write(bakery / "tests" / "__init__.py", "")
    write(bakery / "tests" / "test_oven.py", '"""The oven."""\n')
    return tmp_path


def test_every_subject_stream_bucket_and_service_is_in_the_tables() -> None:
    section = subjects_section()
    names = [
        *(endpoint.subject for endpoint in catalog.ENDPOINTS),
        *(subject for spec in catalog.STREAMS for subject in (spec.name, *spec.subjects)),
        *(spec.name for spec in catalog.BUCKETS),
    ]
    assert [name for name in names if f"`{name}`" not in section] == []
    assert all(f"| {access.service} |" in section for access in catalog.ACCESS)


def test_a_stale_file_is_noticed_and_rewritten_and_the_rest_of_it_stays(repository: Path) -> None:
    code, output = run("--check", "--root", str(repository))
    assert code == 1 and "README.md does not say" in output and "services/bakery/README.md does" in output
    assert run("--root", str(repository))[0] == 0
    assert run("--check", "--root", str(repository)) == (0, "all READMEs are up to date\n")
    for readme, marker in (("README.md", "subjects"), ("services/bakery/README.md", "files")):
        text = (repository / readme).read_text()
        assert text.startswith(f"before\n<!-- {marker}:begin -->\n")
        assert text.endswith(f"<!-- {marker}:end -->\nafter\n") and "stale" not in text


def test_a_package_is_told_by_the_first_sentences_of_its_modules(repository: Path) -> None:
    assert files_section(repository / "services" / "bakery").splitlines()[2:] == [
        r"| `oven.py` | Bakes a\|b, warm |",
        "| **`shop/`** | **Sells what was baked** |",
        "| `shop/till.py` | Counts what comes in |",
    ]


def test_a_wing_with_a_readme_of_its_own_is_one_row_that_leads_there(repository: Path) -> None:
    assert files_section(repository / "services").splitlines()[2:] == [
        "| [**`bakery/`**](bakery/README.md) | The bakery |"
    ]


def test_a_module_without_a_docstring_is_named(repository: Path) -> None:
    module = repository / "services" / "bakery" / "oven.py"
    module.write_text("HEAT = 3\n")
    with pytest.raises(ConfigurationError, match=r"oven\.py has no docstring"):
        first_sentence(module)
    code, output = run("--check", "--root", str(repository))
    assert code == 1 and "services/bakery/README.md" in output


def test_a_file_without_markers_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="there is no <!-- files:begin"):
        with_section("no markers here", "files", "")


MEASURED = "<!-- measured:{place}:begin -->\nwarm\n<!-- measured:{place}:end -->\n"


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (MEASURED.format(place="oven"), ""),
        (MEASURED.format(place="oven/heat,time"), ""),
        (
            MEASURED.format(place="stove"),
            "there is no bench 'stove' in loadtest/bench/__main__.py; there are: oven",
        ),
        (MEASURED.format(place="oven") * 2, "the markers oven:begin, oven:end, oven:begin, oven:end"),
        ("<!-- measured:oven:begin -->\n", "the markers oven:begin: each place has one"),
        (
            MEASURED.format(place="oven").replace("warm", MEASURED.format(place="oven/heat")),
            "the markers oven:begin, oven/heat:begin",
        ),
    ],
    ids=["whole", "parts", "unknown", "twice", "endless", "nested"],
)
def test_places_of_measured_figures_are_checked_and_their_figures_are_not(
    repository: Path, added: str, said: str
) -> None:
    write(repository / "loadtest" / "bench" / "__main__.py", 'BENCHES = {"oven": "loadtest.bench.oven"}\n')
    assert run("--root", str(repository))[0] == 0
    readme = repository / "README.md"
    readme.write_text(readme.read_text() + added)
    code, output = run("--check", "--root", str(repository))
    assert (code, said in output) == (1 if said else 0, True)
    assert readme.read_text().endswith(added)


def test_the_readmes_say_what_the_code_says() -> None:
    assert run("--check") == (0, "all READMEs are up to date\n")


def test_every_package_of_services_has_a_readme() -> None:
    packages = [init.parent for init in (ROOT / "services").glob("*/__init__.py")]
    packages += [ROOT / name for name in PACKAGES]
    lacking = [folder.name for folder in packages if not (folder / "README.md").exists()]
    assert [name for name in lacking if name != "tests"] == []


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

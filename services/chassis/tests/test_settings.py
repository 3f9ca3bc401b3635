"""Settings come from the file, then the environment, and whatever nobody declared is refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError
from services.chassis.settings import DEFAULT_URL, Section, ServiceSettings, forget_secrets, load_settings


class BakerySection(Section):
    ovens: int = 2


class BakerySettings(ServiceSettings):
    bakery: BakerySection = BakerySection()


@pytest.fixture(autouse=True)
def nothing_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the surroundings, and a folder without a choir.toml."""
    monkeypatch.delenv("CHOIR_CONFIG", raising=False)
    for name in ("CHOIR_MESH__URL", "CHOIR_INSTANCE", "CHOIR_BAKERY__OVENS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def write(text: str) -> Path:
    path = Path("choir.toml")
    path.write_text(text)
    return path


def test_without_a_file_or_an_environment_there_are_defaults() -> None:
    settings = load_settings(BakerySettings)
    assert (settings.mesh.url, settings.bakery.ovens, settings.instance) == (DEFAULT_URL, 2, None)


def test_the_file_in_the_working_folder_is_read() -> None:
    write('[mesh]\nurl = "nats://there:1"\n[bakery]\novens = 7\n')
    settings = load_settings(BakerySettings)
    assert (settings.mesh.url, settings.bakery.ovens) == ("nats://there:1", 7)


def test_a_file_of_another_user_in_the_working_folder_is_not_read_unless_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would say to which broker prompts and the password of the environment go."""
    path = write('[mesh]\nurl = "nats://theirs:1"\n')
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1_000_000)
    if path.stat().st_uid:
        with pytest.raises(ConfigurationError, match="belongs to another user"):
            load_settings(BakerySettings)
    monkeypatch.setattr(os, "geteuid", lambda: mine)
    path.chmod(0o666)
    with pytest.raises(ConfigurationError, match="can be written by every user"):
        load_settings(BakerySettings)
    monkeypatch.setenv("CHOIR_CONFIG", str(path))
    assert load_settings(BakerySettings).mesh.url == "nats://theirs:1"


def test_the_environment_wins_over_the_file_key_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[mesh]\nurl = "nats://there:1"\nuser = "baker"\n')
    monkeypatch.setenv("CHOIR_MESH__URL", "nats://elsewhere:2")
    settings = load_settings(BakerySettings)
    assert (settings.mesh.url, settings.mesh.user) == ("nats://elsewhere:2", "baker")


def test_a_file_that_is_named_is_read_instead_of_the_one_that_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("[bakery]\novens = 7\n")
    other = tmp_path / "other.toml"
    other.write_text("[bakery]\novens = 9\n")
    monkeypatch.setenv("CHOIR_CONFIG", str(other))
    assert load_settings(BakerySettings).bakery.ovens == 9


def test_sections_of_other_services_are_passed_over() -> None:
    write('[router]\nreplicas = 3\n[[agents]]\nname = "a"\n')
    assert load_settings(BakerySettings).bakery.ovens == 2


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[bakery]\nbread = 1\n", "bakery.bread"),
        ('[bakery]\novens = "many"\n', "bakery.ovens"),
        ("[health]\nport = 70000\n", "health.port"),
        ('[logging]\nlevel = "loud"\n', "logging.level"),
        ("mesh = 3\n", "mesh"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(text: str, field: str) -> None:
    write(text)
    with pytest.raises(ConfigurationError) as refused:
        load_settings(BakerySettings)
    assert refused.value.field == field
    assert field in refused.value.message
    assert "choir.toml" in refused.value.message


def test_an_unknown_key_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHOIR_MESH__ULR", "nats://there:1")
    with pytest.raises(ConfigurationError) as refused:
        load_settings(BakerySettings)
    assert refused.value.field == "mesh.ulr"


def test_every_fault_is_told_at_once() -> None:
    write("[bakery]\nbread = 1\n[health]\nport = -1\n")
    with pytest.raises(ConfigurationError, match=r"(?s)(?=.*bakery\.bread)(?=.*health\.port)"):
        load_settings(BakerySettings)


def test_a_named_file_that_is_missing_is_an_error_and_not_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHOIR_CONFIG", "nowhere.toml")
    with pytest.raises(ConfigurationError, match=r"CHOIR_CONFIG names nowhere\.toml"):
        load_settings(BakerySettings)


def test_a_file_that_is_not_toml_is_named_with_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    write("[mesh\nurl = 1")
    with pytest.raises(ConfigurationError, match=r"choir\.toml: .*line 1"):
        load_settings(BakerySettings)


def test_secrets_are_in_the_environment_until_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHOIR_MESH__PASSWORD", "hush")
    monkeypatch.setenv("choir_mesh__url", "nats://baker:hush@there:1")
    monkeypatch.setenv("CHOIR_MESH__USER", "baker")
    settings = load_settings(BakerySettings)
    forget_secrets()
    assert settings.mesh.password == "hush"
    assert "hush" not in " ".join(os.environ.values())
    assert os.environ["CHOIR_MESH__USER"] == "baker"


def test_a_password_is_read_from_the_first_line_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("hush\nand nothing else\n")
    monkeypatch.setenv("CHOIR_MESH__PASSWORD_FILE", str(tmp_path / "secret"))
    assert load_settings(ServiceSettings).mesh.password == "hush"


@pytest.mark.parametrize(
    ("text", "told"),
    [(None, "No such file"), ("", "no password in its first line"), (b"\xff", "it is no text")],
)
def test_a_password_file_that_holds_none_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes | None, told: str
) -> None:
    if text is not None:
        (tmp_path / "secret").write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.setenv("CHOIR_MESH__PASSWORD_FILE", str(tmp_path / "secret"))
    with pytest.raises(ConfigurationError, match=rf"mesh(.*)password_file(.*){told}"):
        load_settings(ServiceSettings)


def test_a_password_and_its_file_are_one_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("hush")
    monkeypatch.setenv("CHOIR_MESH__PASSWORD_FILE", str(tmp_path / "secret"))
    monkeypatch.setenv("CHOIR_MESH__PASSWORD", "hush")
    with pytest.raises(ConfigurationError, match="leave one of them out"):
        load_settings(ServiceSettings)

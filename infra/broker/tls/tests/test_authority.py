"""The authority of a mesh: its files, its certificates, and when they are renewed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from infra.broker.tls.authority import Authority, names_in
from infra.broker.tls.names import certificate_names
from schemas.errors import ConfigurationError

NAMES = ("localhost", "127.0.0.1", "mesh.example.org", "fd00::1")
START = datetime(2030, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def shown(authority: Authority) -> x509.Certificate:
    return x509.load_pem_x509_certificate(authority.files.certificate.read_bytes())


def test_a_certificate_is_for_all_names_and_is_signed_by_the_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    assert authority.renew(NAMES)
    assert names_in(shown(authority)) == set(NAMES)
    shown(authority).verify_directly_issued_by(
        x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    )


def test_nobody_but_the_owner_reads_a_key(tmp_path: Path) -> None:
    Authority(tmp_path / "tls").renew(NAMES)
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    keys = sorted((tmp_path / "tls").glob("*.key"))
    assert [(key.name, key.stat().st_mode & 0o777) for key in keys] == [
        ("broker.key", 0o600),
        ("ca.key", 0o600),
    ]


def test_it_is_renewed_when_a_third_of_its_life_is_left_and_not_before(tmp_path: Path) -> None:
    clock = Clock()
    authority = Authority(tmp_path, lifetime=timedelta(days=90), clock=clock)
    authority.renew(NAMES)
    ca, first = authority.certificate.read_bytes(), shown(authority).serial_number
    clock.now += timedelta(days=59)
    assert not authority.renew(NAMES)
    clock.now += timedelta(days=2)
    assert authority.renew(NAMES)
    assert shown(authority).serial_number != first
    assert authority.certificate.read_bytes() == ca


def test_a_new_name_has_it_renewed_and_one_that_is_gone_has_not(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.renew(NAMES)
    assert not authority.renew(NAMES[:-1])
    assert authority.renew((*NAMES, "10.1.2.3"))


def test_a_key_that_is_not_the_certificates_is_replaced_with_it(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "one"), Authority(tmp_path / "other")
    authority.renew(NAMES)
    other.renew(NAMES)
    authority.files.key.write_bytes(other.files.key.read_bytes())
    assert authority.renew(NAMES)
    assert not authority.renew(NAMES)


def test_a_damaged_authority_is_said_and_never_replaced(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.renew(NAMES)
    authority.files.certificate.unlink()
    (tmp_path / "ca.key").write_bytes(b"no key")
    with pytest.raises(ConfigurationError, match="join anew"):
        authority.renew(NAMES)
    assert (tmp_path / "ca.key").read_bytes() == b"no key"


def test_a_broker_on_all_interfaces_is_named_by_their_addresses_and_by_what_is_said() -> None:
    names = certificate_names("0.0.0.0", ("mesh.example.org",))
    assert {"localhost", "127.0.0.1", "mesh.example.org"} < names
    assert "0.0.0.0" not in names
    assert {"192.0.2.7", "localhost"} < certificate_names("192.0.2.7", ())

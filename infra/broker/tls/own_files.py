"""Certificates of the user's own: what is wrong with them is said before a broker shows them to anybody.

What a client would refuse, in OpenSSL's words and at its own host, is named here with the setting and the way
out.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from infra.broker.tls.authority import TlsFiles, names_in
from schemas.errors import ConfigurationError

FIELD = "broker.tls"


def check_own_files(files: TlsFiles, names: Iterable[str], now: datetime) -> None:
    """Raises ConfigurationError unless the key belongs to the certificate, which is valid `now`, for all
    `names` (hosts and addresses), and of the authority in `files.ca`, if there is one."""
    chain = _certificates(files.certificate, "certificate")
    shown = chain[0]
    if _public_key(files.key) != shown.public_key():
        raise _wrong("key", f"{files.key} is not the key of {files.certificate}: put both in place together")
    if now >= shown.not_valid_after_utc:
        ended = f"expired on {shown.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        raise _wrong("certificate", f"{files.certificate} {ended}: put a new one, with its key, in its place")
    if now < shown.not_valid_before_utc:
        begins = f"{shown.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        raise _wrong(
            "certificate", f"{files.certificate} is valid from {begins} on: is this host's clock right?"
        )
    if missing := sorted(name for name in names if not _is_for(shown, name)):
        raise _wrong(
            "certificate",
            f"{files.certificate} is for {', '.join(sorted(_names(shown))) or 'no name'}, and not for "
            f"{', '.join(missing)}, which section [broker] names: have one made for that, or change these",
        )
    if files.ca is not None and not _is_of(chain, _certificates(files.ca, "ca")):
        raise _wrong(
            "ca",
            f"{files.certificate} is not of the authority in {files.ca}: name the file of the authority that "
            "has signed it, and put what is between the two into the file of the certificate",
        )


def _wrong(key: str, what: str) -> ConfigurationError:
    return ConfigurationError(f"{FIELD}.{key}: {what}", field=f"{FIELD}.{key}")


def _missing(key: str, path: Path) -> ConfigurationError:
    what = f"{FIELD}.{key} names {path}, and there is no such file"
    return ConfigurationError(what, field=f"{FIELD}.{key}")


def _certificates(path: Path, key: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except FileNotFoundError as error:
        raise _missing(key, path) from error
    except (OSError, ValueError) as error:
        raise _wrong(key, f"{path} cannot be read as certificates in PEM: {error}") from error


def _public_key(path: Path) -> object:
    try:
        return load_pem_private_key(path.read_bytes(), None).public_key()
    except FileNotFoundError as error:
        raise _missing("key", path) from error
    except (OSError, ValueError, TypeError) as error:
        raise _wrong("key", f"{path} cannot be read as a key in PEM without a password: {error}") from error


def _names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        return names_in(certificate)
    except x509.ExtensionNotFound:
        return frozenset()


def _is_for(certificate: x509.Certificate, name: str) -> bool:
    """Whether a client that comes to this name or address takes the certificate: as RFC 6125 has it, with a
    star for the first label."""
    names = {one.lower() for one in _names(certificate)}
    _, _, parent = name.lower().partition(".")
    return name.lower() in names or bool(parent and f"*.{parent}" in names)


def _is_of(chain: list[x509.Certificate], authorities: list[x509.Certificate]) -> bool:
    """Whether one of the authorities has signed the certificate, or what signed it, and so on."""
    current, *between = chain
    while True:
        if current in authorities or any(_signed(current, one) for one in authorities):
            return True
        following = next((one for one in between if _signed(current, one)), None)
        if following is None:
            return False
        between.remove(following)
        current = following


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True

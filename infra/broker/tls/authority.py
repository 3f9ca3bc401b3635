"""The certificate authority of a mesh, and the certificate of its broker.

It is made at the first start of a broker that other hosts can reach, and is known to nobody but them: the
line of an invite carries its certificate, and whoever joins trusts no other. The keys never leave the host,
and only their owner reads them. Certificates follow RFC 5280; keys are of the curve P-256.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.host.children.processes import writable_folder
from infra.host.secret_file import write_whole
from schemas.errors import ConfigurationError

AUTHORITY_LIFETIME = timedelta(days=20 * 365)
LIFETIME = timedelta(days=90)
CLOCK_TOLERANCE = timedelta(days=1)
"""A certificate is valid from so long ago: the clocks of other hosts may be behind."""
NAME = "Choir mesh"
Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: what a broker shows and proves, and by whose certificate clients know it (`ca`; without it
    by those that their system trusts)."""

    certificate: Path
    key: Path
    ca: Path | None = None


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


class Authority:
    """The authority in a folder, and the certificate that it has given to this host's broker.

    A certificate lives for `lifetime`, and is renewed when a third of it is left.
    """

    def __init__(
        self, folder: Path, *, lifetime: timedelta = LIFETIME, clock: Callable[[], datetime] = now
    ) -> None:
        self._folder = folder
        self._lifetime = lifetime
        self._clock = clock
        self._ca_key = folder / "ca.key"
        self.files = TlsFiles(folder / "broker.pem", folder / "broker.key", folder / "ca.pem")

    @property
    def certificate(self) -> Path:
        """The authority's own certificate, for those who are to trust it."""
        return self._folder / "ca.pem"

    def renew(self, names: Iterable[str]) -> bool:
        """Sees to it that the broker has a certificate for these names and addresses; whether it is new.

        ConfigurationError if the files cannot be read or written.
        """
        wanted = frozenset(names)
        with self._readable():
            self._exists()
            if self._is_good(wanted):
                return False
            self._issue(wanted)
        return True

    def shared(self) -> tuple[str, str]:
        """Its certificate and its key (PEM), for the other brokers of a cluster; made if there are none.

        ConfigurationError if the files cannot be read or written.
        """
        with self._readable():
            self._exists()
            return self.certificate.read_text(), self._ca_key.read_text()

    def take(self, certificate: str, key: str) -> None:
        """Is from now on the authority of this certificate and this key (PEM).

        ConfigurationError if there is another one here, or they do not belong together.
        """
        with self._readable():
            writable_folder(self._folder, "the folder of certificates").chmod(0o700)
            if self.certificate.is_file() and self.certificate.read_text() != certificate:
                raise ConfigurationError(
                    f"this host has an authority of another mesh in {self._folder}: move that folder away, "
                    "and hosts and people who have joined that mesh have to join anew"
                )
            private = load_pem_private_key(key.encode(), None)
            known = x509.load_pem_x509_certificate(certificate.encode()).public_key()
            if not isinstance(private, Key) or private.public_key() != known:
                raise ValueError("the authority's key is that of another")
            write_whole(self.certificate, certificate.encode(), 0o644)
            write_whole(self._ca_key, key.encode())

    def forget(self) -> None:
        """Nothing of it is left here, nor of what it has signed."""
        for path in (self._ca_key, self.certificate, self.files.certificate, self.files.key):
            path.unlink(missing_ok=True)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Says what is wrong with files."""
        try:
            yield
        except OSError as error:
            raise ConfigurationError(
                f"the certificates in {self._folder} cannot be read or written: {error.strerror}"
            ) from error
        except ValueError as error:
            raise ConfigurationError(
                f"the certificates in {self._folder} are damaged ({error}): bring them back from a copy, "
                f"or remove "
                "that folder; a new authority is made then, and hosts and people have to join anew"
            ) from error

    def _exists(self) -> None:
        writable_folder(self._folder, "the folder of certificates").chmod(0o700)
        if not self._ca_key.is_file():
            self._make_authority()

    def _is_good(self, wanted: frozenset[str]) -> bool:
        if not (self.files.certificate.is_file() and self.files.key.is_file()):
            return False
        found = x509.load_pem_x509_certificate(self.files.certificate.read_bytes())
        key = load_pem_private_key(self.files.key.read_bytes(), None)
        left = found.not_valid_after_utc - self._clock()
        # A start that was killed may have left a new key beside an old certificate.
        matches = isinstance(key, Key) and key.public_key() == found.public_key()
        return matches and left > self._lifetime / 3 and names_in(found) >= wanted

    def _make_authority(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
        certificate = (
            self._begun(name, name, key, AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_whole(self.certificate, certificate.public_bytes(Encoding.PEM), 0o644)
        write_whole(self._ca_key, _pem(key), 0o600)

    def _issue(self, names: frozenset[str]) -> None:
        """The key is written first: a certificate without its key would not do."""
        ca_key = load_pem_private_key(self._ca_key.read_bytes(), None)
        if not isinstance(ca_key, Key):
            raise ValueError("the authority's key is of another kind")
        ca = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{NAME}'s broker")])
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]  # brokers connect as well
        certificate = (
            self._begun(subject, ca.subject, key, self._lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(both), critical=False)
            .add_extension(x509.SubjectAlternativeName(map(_general_name, sorted(names))), critical=False)
            .add_extension(issuer_key, critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        write_whole(self.files.key, _pem(key), 0o600)
        write_whole(self.files.certificate, certificate.public_bytes(Encoding.PEM), 0o644)

    def _begun(
        self, subject: x509.Name, issuer: x509.Name, key: Key, lifetime: timedelta
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._clock() - CLOCK_TOLERANCE)
            .not_valid_after(self._clock() + lifetime)
        )


def names_in(certificate: x509.Certificate) -> frozenset[str]:
    """The names and addresses that a certificate is for."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return frozenset((*names.get_values_for_type(x509.DNSName), *addresses))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

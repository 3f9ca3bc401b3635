"""A company's own authority, for tests: a root, an authority below it, and certificates of that."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.broker.tls.authority import TlsFiles, now

DAY = timedelta(days=1)
Key = ec.EllipticCurvePrivateKey
Signer = tuple[x509.Certificate, Key]


class Company:
    """Writes PEM files into `folder`; `ca` is the certificate of its root."""

    def __init__(self, folder: Path, name: str = "Company") -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._root = _signed(f"{name} root", None, authority=True)
        self._below = _signed(f"{name} servers", self._root, authority=True)
        self.ca = folder / "root.pem"
        self.ca.write_bytes(_pem(self._root[0]))

    def files(
        self,
        names: Iterable[str],
        from_now: timedelta = -DAY,
        until: timedelta = 30 * DAY,
        name: str = "broker",
    ) -> TlsFiles:
        """A certificate for these names and addresses, with what is between it and the root, and its key."""
        certificate, key = _signed(name, self._below, names, from_now=from_now, until=until)
        files = TlsFiles(self._folder / f"{name}.pem", self._folder / f"{name}.key", self.ca)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files.key.write_bytes(secret)
        files.certificate.write_bytes(_pem(certificate) + _pem(self._below[0]))
        return files


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _signed(
    name: str,
    issuer: Signer | None,
    names: Iterable[str] = (),
    *,
    authority: bool = False,
    from_now: timedelta = -DAY,
    until: timedelta = 30 * DAY,
) -> Signer:
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    of, by = (subject, key) if issuer is None else (issuer[0].subject, issuer[1])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(of)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() + from_now)
        .not_valid_after(now() + until)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False),
            critical=True,
        )
    )
    if not authority:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False).add_extension(
            x509.SubjectAlternativeName([_general_name(one) for one in names]), critical=False
        )
    return builder.sign(by, hashes.SHA256()), key


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)

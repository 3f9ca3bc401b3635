"""Why a connection over TLS was not made, in words for people: what is wrong, and what to type."""

from __future__ import annotations

import ssl

from services.chassis.settings import MeshSection

HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH = 62, 64
NOT_YET_VALID, EXPIRED = 9, 10
"""Codes of OpenSSL: see X509_verify_cert_error_string(3)."""
NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "UNEXPECTED_MESSAGE")


def tls_problem(error: Exception, mesh: MeshSection) -> str | None:
    """What is wrong with the broker's certificate, or its TLS; None if `error` says nothing of that."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_certificate(error, mesh)
    if isinstance(error, ssl.SSLError):
        if error.reason in NOT_TLS:
            return (
                "it does not begin with TLS, as the broker of `choir up` does. If it is another NATS, set "
                "tls_first = false in section [mesh]; otherwise somebody may stand between"
            )
        return f"TLS failed ({error.reason or error})"
    return None


def _of_certificate(error: ssl.SSLCertVerificationError, mesh: MeshSection) -> str:
    match error.verify_code:
        case code if code in (HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH):
            return (
                f"its certificate is not for the name in the URL ({error.verify_message}): add that to "
                "addresses in section [broker] of its host, and start it again; a certificate of your own "
                "has to be made for that name"
            )
        case code if code in (NOT_YET_VALID, EXPIRED):
            return (
                f"{error.verify_message}: if both hosts' clocks are right, start that host's mesh again; "
                "a certificate of your own has to be replaced there"
            )
    if mesh.ca is None:
        return (
            "its certificate is of an authority that this system does not know. `choir invite` on its host "
            "prints "
            "a line, and `choir join` with that line lets you in; or set ca in section [mesh] to the file of "
            "its authority"
        )
    return (
        f"its certificate is not of the authority in {mesh.ca}. Either it is the broker of another mesh "
        f"(join "
        "that anew with `choir join`), or somebody stands between: nothing was sent"
    )

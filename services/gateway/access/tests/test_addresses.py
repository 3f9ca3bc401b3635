"""Where a gateway may listen: on other addresses than this host's only with keys and over https."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from schemas.errors import ConfigurationError
from services.gateway.http.connection.listener import tls_context
from services.gateway.settings import GatewaySection
from services.gateway.tests.serving import serving


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that it has signed itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "gateway.pem", folder / "gateway.key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", key, "-out", made, "-days", "1", "-subj", "/CN=gateway",
            "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return made, key


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"host": "0.0.0.0"}, "tls_certificate"),
        ({"host": "192.168.1.7", "behind_proxy": True, "keys_required": False}, "keys_required"),
        ({"host": "0.0.0.0", "tls_certificate": "gateway.pem"}, "tls_key"),
        ({"tls_key": "gateway.key"}, "tls_certificate"),
    ],
)
def test_a_gateway_that_others_reach_has_keys_and_https(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        GatewaySection(**settings)
    assert field in str(refusal.value)


def test_keys_are_needed_wherever_others_reach_it() -> None:
    assert GatewaySection(host="0.0.0.0", behind_proxy=True).keys_needed
    assert GatewaySection(keys_required=True).keys_needed
    assert not GatewaySection().keys_needed


async def test_it_speaks_https_and_nothing_older(live_mesh: str, certificate: tuple[Path, Path]) -> None:
    made, key = certificate
    async with serving(live_mesh, tls_certificate=made, tls_key=key) as url:
        https = url.replace("http:", "https:")
        async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=made), timeout=60) as http:
            assert (await http.get(f"{https}/v1/models")).status_code == 200
            with pytest.raises(httpx.TransportError):
                await http.get(f"{url}/v1/models")
        old = ssl.create_default_context(cafile=made)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        async with httpx.AsyncClient(verify=old, timeout=60) as http:
            assert (await http.get(f"{https}/v1/models")).status_code == 200
        async with httpx.AsyncClient(timeout=60) as http:
            with pytest.raises(httpx.ConnectError):
                await http.get(f"{https}/v1/models")


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    made, key = certificate
    for pair in ((tmp_path / "none.pem", key), (key, key), (made, made)):
        with pytest.raises(ConfigurationError, match="tls_certificate") as error:
            tls_context(GatewaySection(tls_certificate=pair[0], tls_key=pair[1]))
        assert str(pair[0]) in error.value.message


async def test_of_a_proxy_that_is_trusted_the_address_is_believed(
    live_mesh: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told: dict[bool, str] = {}
    for trusted in ((), ("127.0.0.1",)):
        async with serving(live_mesh, trusted_proxies=trusted) as url, httpx.AsyncClient(timeout=60) as http:
            await http.get(f"{url}/nothing", headers={"x-forwarded-for": "203.0.113.9"})
        told[bool(trusted)] = capsys.readouterr().out
    assert "203.0.113.9" not in told[False]
    assert "203.0.113.9" in told[True]

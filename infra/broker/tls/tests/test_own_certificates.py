"""Certificates of the user's own: a mesh that runs on those of a company, and what is wrong is said."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from infra.broker.access.accounts import accounts
from infra.broker.access.keys import KeyRing
from infra.broker.access.permissions import OPERATOR
from infra.broker.broker import Broker
from infra.broker.local_cluster import free_ports
from infra.broker.tls.authority import TlsFiles, now
from infra.broker.tls.own_files import check_own_files
from infra.broker.tls.tests.company import DAY, Company
from infra.host.operator_connection import connect_operator
from infra.testing.choir_up import typed, up
from infra.testing.switched_off import switched_off
from schemas.errors import ConfigurationError
from services.chassis.settings import MeshSection

HERE = "127.0.0.1"
DEADLINE_S = 120.0


def wrong(files: TlsFiles, *names: str) -> tuple[str, str | None]:
    with pytest.raises(ConfigurationError) as refused:
        check_own_files(files, names, now())
    return refused.value.message, refused.value.field


def test_what_is_wrong_with_certificates_is_said_before_they_are_shown(tmp_path: Path) -> None:
    company, other = Company(tmp_path / "company"), Company(tmp_path / "other", "Other")
    good = company.files([HERE, "*.example.org", "Mesh.example.com"])
    check_own_files(good, [HERE, "one.example.org", "mesh.example.com"], now())
    check_own_files(replace(good, ca=None), [HERE], now())
    check_own_files(replace(good, ca=good.certificate), [HERE], now())  # the authority between
    damaged = tmp_path / "damaged.pem"
    damaged.write_text("-----BEGIN CERTIFICATE-----\n")
    another = company.files([HERE], name="another")
    alone = tmp_path / "alone.pem"
    alone.write_text(good.certificate.read_text().partition("-----END CERTIFICATE-----\n")[0])
    with alone.open("a") as file:
        file.write("-----END CERTIFICATE-----\n")
    table = (
        (replace(good, key=tmp_path / "no.key"), (), "key", "names .*no.key, and there is no such file"),
        (replace(good, certificate=damaged), (), "certificate", "cannot be read as certificates"),
        (replace(good, key=damaged), (), "key", "cannot be read as a key"),
        (replace(good, key=another.key), (), "key", "is not the key of .*put both in place together"),
        (
            company.files([HERE], until=-DAY / 2, name="old"),
            (),
            "certificate",
            "expired on 2.* put a new one",
        ),
        (company.files([HERE], from_now=DAY, name="new"), (), "certificate", "is this host's clock right"),
        (good, ("a.b.example.org",), "certificate", r"\[broker\] names: have one made for that"),
        (replace(good, ca=other.ca), (), "ca", "is not of the authority in .*other/root.pem: name the file"),
        (replace(good, certificate=alone), (), "ca", "put what is between the two into the file"),
    )
    for files, names, key, said in table:
        message, field = wrong(files, *names)
        assert re.search(said, message), message
        assert field == f"broker.tls.{key}", message


async def test_a_client_is_told_what_is_wrong_with_a_certificate_and_what_to_do(tmp_path: Path) -> None:
    company, other = Company(tmp_path / "company"), Company(tmp_path / "other", "Other")
    files, keys = company.files([HERE]), KeyRing(tmp_path / "keys")

    async def nothing() -> None:
        """Nobody need be told."""

    async def come(host: str = HERE, ca: Path = company.ca) -> None:
        section = MeshSection(url=f"tls://{host}:{broker.port}", nkey=str(keys.path(OPERATOR)), ca=str(ca))
        await (await connect_operator(section.url, section, nothing)).close()

    block = accounts(keys.public_key(OPERATOR), (), ())
    async with Broker(tmp_path / "broker", accounts=block, tls=files) as broker:
        await come()
        with pytest.raises(ConfigurationError, match=r"not of the authority in .*other/root.pem.*choir join"):
            await come(ca=other.ca)
        with pytest.raises(
            ConfigurationError, match="a certificate of your own has to be made for that name"
        ):
            await come("localhost")
        company.files([HERE], until=-DAY / 2)
        await broker.reload()
        with pytest.raises(ConfigurationError, match=r"has expired.* has to be replaced there"):
            await come()


CONFIG = """
[broker]
host = "0.0.0.0"
port = {port}
addresses = ["127.0.0.1"]
[broker.tls]
certificate = "{files.certificate}"
key = "{files.key}"
ca = "{files.ca}"
[gateway]
port = {gateway}
[[agents]]
name = "one"
backend = "instant"
models = [{{ name = "choir-one", reply = "Paris" }}]
""" + switched_off("aggregator", "summarizer", "metrics")
ATTIC = """
[[agents]]
name = "two"
backend = "instant"
models = [{ name = "choir-two", reply = "Lyon" }]
"""


@pytest.mark.soak
def test_a_mesh_on_the_certificates_of_a_company_serves_everybody_and_wrong_ones_are_refused(
    tmp_path: Path,
) -> None:
    company, other = Company(tmp_path / "company"), Company(tmp_path / "other", "Other")
    port, gateway = free_ports(2)
    config, attic = tmp_path / "choir.toml", tmp_path / "attic.toml"
    config.write_text(CONFIG.format(port=port, gateway=gateway, files=company.files([HERE])))
    attic.write_text(ATTIC)
    here, there = tmp_path / "here", tmp_path / "there"
    for state in (here, there):
        state.mkdir()
    with up(here, config, CHOIR_GATEWAY__ENABLED="true") as url:
        assert url == f"tls://{HERE}:{port}"
        assert not (here / "choir" / "tls").exists()  # the mesh makes no authority of its own
        # The client of this host, and the gateway
        assert typed(here, "ask", "Which city?", "-m", "choir-one").stdout == "Paris\n"
        body = {"model": "choir-one", "messages": [{"role": "user", "content": "Which city?"}]}
        reply = httpx.post(f"http://{HERE}:{gateway}/v1/chat/completions", json=body, timeout=DEADLINE_S)
        assert reply.json()["choices"][0]["message"]["content"] == "Paris", reply.text
        # A host that joins by a line, which has the company's certificate
        joined = typed(there, "join", typed(here, "invite", "host", "--name", "attic").stdout.strip())
        assert joined.returncode == 0, joined.stderr
        with up(there, attic):
            assert typed(here, "ask", "Which city?", "-m", "choir-two").stdout == "Lyon\n"
        # Whoever trusts another authority, or comes to another name, sends nothing and is told why
        key = str(here / "choir" / "tenants" / "local.nk")
        for told, said in (
            ({"CHOIR_MESH__URL": url, "CHOIR_MESH__CA": str(other.ca)}, "not of the authority in"),
            (
                {"CHOIR_MESH__URL": f"tls://localhost:{port}", "CHOIR_MESH__CA": str(company.ca)},
                "not for the name",
            ),
        ):
            refused = typed(there, "models", CHOIR_MESH__NKEY=key, **told)
            assert refused.returncode != 0 and said in refused.stderr, refused.stderr
            assert "Traceback" not in refused.stderr
    # What has expired, and what is for another name, starts no broker
    for names, until, said in (
        ((HERE,), -DAY / 2, "expired on"),
        (("10.1.2.3",), DAY, "and not for 127.0.0.1"),
    ):
        company.files(names, until=until)
        refused = typed(here, "up", "--config", str(config))
        assert refused.returncode != 0 and said in refused.stderr, refused.stderr

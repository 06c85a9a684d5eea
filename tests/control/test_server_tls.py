"""The server proves who it is, to whoever pins the fleet's authority, and speaks with nobody in clear."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
import trustme
from cryptography import x509

from harmony_agent import config as agent_config
from harmony_agent.bus.connection import Bus
from harmony_control.bus.connection import admin
from harmony_control.enrol import add_agent
from harmony_control.server.config import Listen
from harmony_control.server.process import IssuedCertificate, running
from harmony_control.store.home import Home
from harmony_core.errors import BusUnreachable, ConfigError, UsageError
from harmony_core.wire.tls import verifying_context
from tests.control.ground import harmony
from tests.nats import fleet_home, serving
from tests.ports import free_address

WITHIN_S = 10


def issued(directory: Path, *names: str, by: trustme.CA | None = None) -> IssuedCertificate:
    """A certificate of another authority, as a person has it: three files."""
    authority = by or trustme.CA()
    leaf = authority.issue_cert(*names)
    paths = IssuedCertificate(
        certificate=directory / "cert.pem",
        key=directory / "key.pem",
        authority=directory / "root.pem",
    )
    leaf.cert_chain_pems[0].write_to_path(paths.certificate)
    leaf.private_key_pem.write_to_path(paths.key)
    authority.cert_pem.write_to_path(paths.authority)
    return paths


async def why_not(home: Home, agent: str) -> str | None:
    return await Bus.of(agent_config.load(home.agent_toml(agent))).why_not(within_s=WITHIN_S)


async def test_whoever_speaks_in_clear_hears_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        listen = Listen.parse(bus.home.control().listen or "")
        reader, writer = await asyncio.open_connection(listen.host, listen.port)
        writer.write(b"CONNECT {}\r\nPING\r\n")
        async with asyncio.timeout(WITHIN_S):
            heard = await reader.read()
        writer.close()
    assert b"INFO" not in heard
    assert b"PONG" not in heard


async def test_nothing_older_than_tls_1_3_is_spoken(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        listen = Listen.parse(bus.home.control().listen or "")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(bus.home.authority)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
            await asyncio.open_connection(
                listen.host, listen.port, ssl=context, server_hostname="harmony-server"
            )


async def test_the_authority_is_made_once_and_its_keys_are_nobody_elses(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1") as bus:
        home, first = bus.home, bus.home.authority.read_bytes()
    home.server_certificate.unlink()
    async with running(home):
        assert home.authority.read_bytes() == first
        assert await why_not(home, "pi-1") is None
    for path in (home.authority_key, home.server_key):
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("lost", ["ca.pem", "ca.key"])
async def test_half_an_authority_is_not_replaced_behind_the_devices_backs(
    tmp_path: Path, lost: str
) -> None:
    async with serving(tmp_path) as bus:
        home = bus.home
    (home.server / lost).unlink()
    with pytest.raises(ConfigError, match=f"{lost}.*put back a copy"):
        async with running(home):
            pass


async def test_an_authority_that_was_cut_off_as_it_was_made_is_made_anew(tmp_path: Path) -> None:
    async with serving(tmp_path / "other") as other:
        pass
    home = fleet_home(tmp_path)
    home.make_server()
    home.authority_key.write_bytes(other.home.authority_key.read_bytes())
    async with running(home, listen=free_address()):
        assert home.authority.exists()


async def test_a_key_of_another_authority_is_noticed(tmp_path: Path) -> None:
    async with serving(tmp_path / "other") as other:
        pass
    async with serving(tmp_path) as bus:
        home = bus.home
    home.authority_key.write_bytes(other.home.authority_key.read_bytes())
    with pytest.raises(ConfigError, match="is not the key of"):
        async with running(home):
            pass


async def test_a_device_refuses_a_server_with_a_new_authority_and_says_what_to_do(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, "pi-1") as bus:
        home = bus.home
    for path in (home.authority, home.authority_key):
        path.unlink()
    async with running(home):
        said = await why_not(home, "pi-1")
        assert said is not None
        assert "does not prove to be the server of this fleet" in said
        assert "harmony enroll root@HOST --replace" in said
        add_agent(home, "pi-1", replace=True)
        assert await why_not(home, "pi-1") is None


async def test_a_certificate_of_an_authority_of_ones_own_is_served_and_remembered(
    tmp_path: Path,
) -> None:
    home = fleet_home(tmp_path)
    given = issued(tmp_path, "bus.example", "other.example")
    async with running(home, listen=free_address(), issued=given):
        await asyncio.to_thread(add_agent, home, "pi-1")
        assert await why_not(home, "pi-1") is None
        assert agent_config.load(home.agent_toml("pi-1")).nats.tls_server_name == "bus.example"
    async with running(home), admin(home):
        assert await why_not(home, "pi-1") is None
    assert not home.authority.exists()


async def test_a_renewed_certificate_is_taken_at_the_next_start(tmp_path: Path) -> None:
    home, authority = fleet_home(tmp_path), trustme.CA()
    given = issued(tmp_path, "bus.example", by=authority)
    async with running(home, listen=free_address(), issued=given):
        await asyncio.to_thread(add_agent, home, "pi-1")
    issued(tmp_path, "bus.example", by=authority)
    async with running(home):
        assert await why_not(home, "pi-1") is None


def _of_another(given: IssuedCertificate) -> None:
    trustme.CA().cert_pem.write_to_path(given.authority)


def _with_another_key(given: IssuedCertificate) -> None:
    trustme.CA().issue_cert("bus.example").private_key_pem.write_to_path(given.key)


def _without_a_name(given: IssuedCertificate) -> None:
    issued(given.certificate.parent, "192.0.2.7")


def _for_all_names(given: IssuedCertificate) -> None:
    issued(given.certificate.parent, "*.example.org")


def _no_certificate(given: IssuedCertificate) -> None:
    given.certificate.write_text("-----BEGIN CERTIFICATE-----\nno\n")


def _lost(given: IssuedCertificate) -> None:
    given.certificate.unlink()


def _without_an_authority(given: IssuedCertificate) -> None:
    given.authority.unlink()


def _with_none(given: IssuedCertificate) -> None:
    given.authority.write_text("x")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_of_another, "would refuse the certificate"),
        (_with_another_key, "no certificate and its key"),
        (_without_a_name, "has no name of a host"),
        (_for_all_names, "has no name of a host"),
        (_no_certificate, "cannot be used"),
        (_lost, "cannot be used"),
        (_without_an_authority, "there is no"),
        (_with_none, "no certificate of an authority"),
    ],
)
async def test_a_certificate_that_devices_would_refuse_is_not_served(
    tmp_path: Path, spoil: Callable[[IssuedCertificate], None], said: str
) -> None:
    home = fleet_home(tmp_path)
    given = issued(tmp_path, "bus.example")
    spoil(given)
    with pytest.raises(ConfigError, match=said):
        async with running(home, listen=free_address(), issued=given):
            pass
    assert not home.control_toml.exists()


async def test_another_certificate_is_refused_while_the_server_runs(tmp_path: Path) -> None:
    async with serving(tmp_path) as bus:
        with pytest.raises(UsageError, match=r"end it .* and start it again"):
            async with running(bus.home, issued=issued(tmp_path, "bus.example")):
                pass


async def test_a_clock_of_1970_does_not_keep_a_device_away(tmp_path: Path) -> None:
    """Nor one of 2106, nor a certificate that nobody has renewed."""
    home = fleet_home(tmp_path)
    authority = trustme.CA()
    expired = authority.issue_cert("bus.example", not_after=_long_ago(), not_before=_long_ago(2))
    given = issued(tmp_path, "bus.example", by=authority)
    expired.cert_chain_pems[0].write_to_path(given.certificate)
    expired.private_key_pem.write_to_path(given.key)
    async with running(home, listen=free_address(), issued=given):
        await asyncio.to_thread(add_agent, home, "pi-1")
        assert await why_not(home, "pi-1") is None


async def test_an_authority_that_has_expired_keeps_nobody_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither devices nor operators: what ends an authority is another one."""
    monkeypatch.setattr("harmony_control.server.authority._VALID_DAYS", 1)
    async with serving(tmp_path, "pi-1") as bus:
        for path in (bus.home.authority, bus.home.server_certificate):
            found = x509.load_pem_x509_certificate(path.read_bytes())
            assert found.not_valid_after_utc < datetime.now(UTC)
        assert await why_not(bus.home, "pi-1") is None
        assert await bus.bucket("desired-state").put("pi-1", b"x")
        assert (await harmony(bus.home, "status")).status == 4  # reached: pi-1 was never heard


def _long_ago(days: int = 1) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


@pytest.mark.parametrize(
    "text", ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_pins_nobody(text: str) -> None:
    with pytest.raises(ConfigError, match="no certificate of an authority"):
        verifying_context(text)


async def test_an_operator_without_the_authoritys_certificate_is_told_where_it_is(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as bus:
        bus.home.authority.unlink()
        with pytest.raises(ConfigError, match=r"there is no .*ca\.pem"):
            async with admin(bus.home):
                pass
        await asyncio.sleep(0)


async def test_whoever_relays_a_login_gets_no_session(tmp_path: Path) -> None:
    """An nkey signs a nonce, which could be handed on; the handshake before it cannot."""
    async with serving(tmp_path / "theirs") as theirs, serving(tmp_path) as ours:
        control = ours.home.control()
        ours.home.save_control(attrs.evolve(control, url=theirs.home.control().url))
        with pytest.raises(BusUnreachable, match="does not prove to be the server"):
            async with admin(ours.home):
                pass

"""Firewalls on real nftables and systemd, in a box: the contract, and what only these can show."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncGenerator

import attrs
import pytest

from harmony_core.errors import CapabilityUnavailable, NetworkRolledBack
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_core.resources import Firewall
from harmony_core.testing import FirewallHostContract, FirewallUnderTest
from harmony_pi_topology.common.dbus import SYSTEMD
from harmony_pi_topology.common.journal import Journal
from harmony_pi_topology.firewall.nftables import NftablesFirewalls
from harmony_pi_topology.firewall.rules import TABLE, UNIT
from harmony_pi_topology.systemd.reconciler import SdbusSystemd
from harmony_pi_topology.testing.firewall_contract import KEY, make_firewall
from tests.box import Bed, Box
from tests.box.bed import GATEWAY

from .box_containers import without_tag
from .box_units import RootOfABox

_EMPTY = f"""
systemctl stop 'harmony-firewall*'
rm -rf /etc/systemd/system/harmony-firewall* /etc/systemd/system/*.wants/{UNIT} /run/harmony/firewall
systemctl daemon-reload
systemctl reset-failed
nft flush ruleset
"""
# Nobody keeps track of connections any more, so that no answer belongs to one.
_NO_TRACK = (
    "table inet theirs { chain raw { type filter hook prerouting priority raw; notrack; }; }"
)


class BoxFirewall:
    """A `FirewallBystander` in a box, and the way to its control plane: a socket of this process."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._cuts_off: list[str] = []
        self._server: asyncio.Server | None = None
        self._port = 0

    async def reachable(self) -> bool:
        """As `Reachability.reachable`: by a connection from within the box."""
        table = await self.look() or ""
        if any(each in table for each in self._cuts_off):
            return False
        probe = f"exec 3<>/dev/tcp/{GATEWAY}/{self._port}"
        done = await self.run("timeout", "1", "bash", "-c", probe, check=False)
        return done.returncode == 0

    async def look(self) -> str | None:
        done = await self.run("nft", "list", "table", *TABLE.split(), check=False)
        return done.stdout.decode() if done.returncode == 0 else None

    async def flush(self) -> None:
        await self.run("nft", "flush", "ruleset")

    async def add(self) -> None:
        await self.run("nft", f"add rule {TABLE} incoming tcp dport 7 accept")

    async def make_table(self) -> None:
        await self.run("nft", f"add table {TABLE}")

    async def cut_off(self, port: int) -> None:
        self._cuts_off.append(f"dport {port} ")

    async def silence(self, silent: bool) -> None:
        if silent and self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        elif not silent and self._server is None:
            self._server = await asyncio.start_server(_hang_up, GATEWAY, self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def is_kept(self) -> bool:
        done = await self.run("systemctl", "is-enabled", UNIT, check=False)
        return done.stdout.strip() == b"enabled"

    async def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return await asyncio.to_thread(self._box.run, command, check=check)


async def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


class FirewallsOfABox:
    """Reconcilers that share their records, as an agent's do across its restarts and its device's."""

    def __init__(self, box: Box) -> None:
        self.bystander = BoxFirewall(box)
        self._box = box
        self._records, self._units = MemoryRecords(), MemoryRecords()
        self._opened: list[NftablesFirewalls] = []

    def opened(self) -> NftablesFirewalls:
        units = SdbusSystemd(
            records=self._units,
            backups=MemoryBackups(),
            address=self._box.dbus_address,
            files=RootOfABox(self._box),
            journal=Journal(self._box.inside(["journalctl"])),
            job_wait_s=5.0,
        )
        firewall = NftablesFirewalls(
            units,
            records=self._records,
            unit_records=self._units,
            reachability=self.bystander,
            address=self._box.dbus_address,
            root=self._box.root,
        )
        self._opened.append(firewall)
        return firewall

    def under_test(self) -> FirewallUnderTest:
        return FirewallUnderTest(
            firewall=self.opened(),
            bystander=self.bystander,
            reopen=self.opened,
            records=(self._records, self._units),
        )

    async def close(self) -> None:
        while self._opened:
            await self._opened.pop().close()


@pytest.fixture
async def firewalls(pi: Box) -> AsyncGenerator[FirewallsOfABox]:
    await asyncio.to_thread(pi.run, ["sh", "-c", _EMPTY], check=False)
    firewalls = FirewallsOfABox(pi)
    await firewalls.bystander.silence(False)
    yield firewalls
    await firewalls.close()
    await firewalls.bystander.silence(True)


class TestNftablesInABox(FirewallHostContract):
    @pytest.fixture
    def host(self, firewalls: FirewallsOfABox) -> FirewallUnderTest:
        return firewalls.under_test()


async def test_systemd_takes_back_what_cuts_the_device_off_whatever_becomes_of_the_agent(
    firewalls: FirewallsOfABox,
) -> None:
    host, bystander = firewalls.under_test(), firewalls.bystander
    await bystander.run("nft", _NO_TRACK)
    assert await bystander.reachable()
    wish = make_firewall(22)
    assert (await host.look(wish)).pending is not None
    assert not await bystander.reachable()
    await firewalls.close()
    await bystander.run("systemctl", "daemon-reload")  # as whoever installs a package does
    while await bystander.look() is not None:
        await asyncio.sleep(0.2)
    assert await bystander.reachable()
    error = await firewalls.under_test().expect_failure(wish)
    assert isinstance(error, NetworkRolledBack)


@pytest.mark.parametrize("verb", ["daemon-reload", "daemon-reexec"])
async def test_a_trial_is_no_longer_where_systemd_reads_all_units_anew(
    firewalls: FirewallsOfABox, verb: str
) -> None:
    host, bystander = firewalls.under_test(), firewalls.bystander

    async def look_when() -> float:
        """When it is taken back, by the clock that only goes forward."""
        path = "/org/freedesktop/systemd1/unit/harmony_2dfirewall_2dundo_2etimer"
        asked = (SYSTEMD, path, f"{SYSTEMD}.Timer", "NextElapseUSecMonotonic")
        told = await bystander.run("busctl", "get-property", *asked)
        return int(told.stdout.split()[1]) / 1e6

    begun_s = time.clock_gettime(time.CLOCK_MONOTONIC)
    assert (await host.look(make_firewall(22, confirm_within_s=600))).pending is not None
    when_s = await look_when()
    assert begun_s + 600 <= when_s < time.clock_gettime(time.CLOCK_MONOTONIC) + 600
    await bystander.run("systemctl", verb)
    assert await look_when() == when_s


async def test_a_trial_whose_timer_somebody_stops_is_taken_back_at_the_next_look(
    firewalls: FirewallsOfABox,
) -> None:
    host, bystander = firewalls.under_test(), firewalls.bystander
    wish = make_firewall(22, confirm_within_s=600)
    assert (await host.look(wish)).pending is not None
    await bystander.run("systemctl", "stop", "harmony-firewall-undo.timer")
    assert isinstance(await host.expect_failure(wish), NetworkRolledBack)
    assert await bystander.look() is None


async def test_whoever_throws_away_all_rules_by_nftables_service_throws_away_no_others_than_theirs(
    firewalls: FirewallsOfABox,
) -> None:
    host, bystander = firewalls.under_test(), firewalls.bystander
    wish = make_firewall(22)
    await host.apply_one(wish)
    seen = await bystander.look()
    heard = asyncio.Event()
    await host.firewall.watch([KEY], lambda _: heard.set())
    for verb in ("start", "stop"):
        heard.clear()
        await bystander.run("systemctl", verb, "nftables.service")
        await asyncio.wait_for(heard.wait(), 5)
        assert await bystander.look() is None, verb
        await host.apply_one(wish)
        assert await bystander.look() == seen
    await bystander.run("systemctl", "start", "nftables.service")
    await host.apply_one(wish)
    for verb in ("restart", "reload"):  # without the agent
        await bystander.run("nft", "flush", "ruleset")
        await bystander.run("systemctl", verb, "nftables.service")
        async with asyncio.timeout(5):
            while await bystander.look() != seen:
                await asyncio.sleep(0.05)


async def test_what_nft_refuses_is_told_with_its_words_and_what_to_do(
    firewalls: FirewallsOfABox,
) -> None:
    host, bystander = firewalls.under_test(), firewalls.bystander
    await bystander.run("mount", "--bind", "/usr/bin/false", "/usr/sbin/nft")
    try:
        error = await host.expect_failure(make_firewall(22))
    finally:
        await bystander.run("umount", "/usr/sbin/nft")
    assert isinstance(error, CapabilityUnavailable)
    assert "apt-get install nftables" in error.message


def _reach(address: str, port: int) -> str:
    """Connect from outside: what comes of it."""
    try:
        with socket.create_connection((address, port), timeout=0.7):
            return "let in"
    except TimeoutError:
        return "dropped"
    except OSError as error:
        return str(error.strerror)


async def test_ports_that_containers_publish_are_let_in_only_where_they_are_allowed(
    pi: Box, bed: Bed, firewalls: FirewallsOfABox
) -> None:
    """And containers reach each other, by name, and the device; and whoever is connected stays so."""
    host, run = firewalls.under_test(), firewalls.bystander.run
    image = without_tag(bed.registry.push_busybox("web", "firewall", stop_signal="SIGKILL"))
    await run("podman", "network", "create", "--ignore", "back")
    options = ("podman", "run", "-d", "-q", "--network", "back")
    await run(*options, "--name", "web", "-p", "8080:80", "-p", "8081:80", image)
    await run(*options, "--name", "db", image)
    address = pi.text(
        "podman", "inspect", "-f", "{{.NetworkSettings.Networks.back.IPAddress}}", "web"
    )
    served = ("busybox", "httpd", "-f", "-p", "81", "-h", "/etc/systemd")
    await run("systemd-run", "--unit=served", *served)
    await asyncio.to_thread(pi.wait_for, ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/81"])
    gateway = f"{address.rpartition('.')[0]}.1"
    route = ("ip", "route", "replace", f"{address}/32", "via", pi.address)
    await asyncio.to_thread(subprocess.run, route, check=True)

    async def reach() -> dict[str, str]:
        doors = {
            "published": (pi.address, 8080),
            "published, too": (pi.address, 8081),
            "device": (pi.address, 81),
            "device, by the address of a bridge": (gateway, 81),
            "container": (address, 80),
        }
        what = (asyncio.to_thread(_reach, *door) for door in doors.values())
        found = dict(zip(doors, await asyncio.gather(*what), strict=True))
        for each in (
            "http://web/",
            f"http://{gateway}:81/system.conf",
            f"http://{pi.address}:8081/",
        ):
            command = ("podman", "exec", "db", "busybox", "wget", "-q", "-T", "3", "-O", "-", each)
            done = await run(*command, check=False)
            found[each] = "let in" if done.returncode == 0 else done.stderr.decode()
        return found

    bridge_route = ("ip", "route", "replace", f"{gateway}/32", "via", pi.address)
    await asyncio.to_thread(subprocess.run, bridge_route, check=True)
    before = await reach()
    assert set(before.values()) == {"let in"}, before
    connected = socket.create_connection((pi.address, 8081))
    await host.apply_one(make_firewall(8080))
    found = await reach()
    dropped = {"published, too", "device", "device, by the address of a bridge", "container"}
    assert {each for each, what in found.items() if what == "dropped"} == dropped, found
    assert {found[each] for each in found.keys() - dropped} == {"let in"}, found
    connected.sendall(b"GET / HTTP/1.0\r\n\r\n")
    connected.settimeout(5)
    assert connected.recv(1) == b"H"
    connected.close()
    refusing = Firewall(name="base", input="reject", allow=make_firewall(81).allow)
    await host.apply_one(refusing)
    assert await asyncio.to_thread(_reach, pi.address, 81) == "let in"
    assert await asyncio.to_thread(_reach, pi.address, 8080) == "Connection refused"
    await run("podman", "rm", "-af", "-t", "0")
    await run("systemctl", "stop", "served")


async def test_a_device_that_loses_its_power_in_a_trial_comes_back_with_what_was_confirmed(
    pi: Box, firewalls: FirewallsOfABox
) -> None:
    host, bystander = firewalls.under_test(), firewalls.bystander
    good, other = make_firewall(22), make_firewall(22, 443, confirm_within_s=600)
    await bystander.run("systemctl", "enable", "nftables.service")  # whose file flushes all rules
    await host.apply_one(good)
    seen = await bystander.look()
    await bystander.cut_off(443)
    assert (await host.look(other)).pending is not None
    assert await bystander.look() != seen
    await firewalls.close()
    await asyncio.to_thread(pi.power_cut)
    await asyncio.to_thread(pi.power_on)
    assert await bystander.look() == seen, "without any agent"
    await bystander.run("nft", "list", "table", "inet", "filter")
    again = attrs.evolve(host, firewall=firewalls.opened())
    assert (await again.look(other)).pending is not None, "once more"
    await again.apply_one(good)
    assert await bystander.look() == seen

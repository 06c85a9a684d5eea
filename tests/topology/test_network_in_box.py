"""Network profiles on a real NetworkManager, in a box: the contract, and what only a real one can show."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from harmony_core.errors import DidNotStick, InvalidResource, NetworkFailed, NetworkRolledBack
from harmony_core.resources import Ethernet, Ipv4, Ipv6, NetworkProfile, SecretRef, Vlan, Wifi
from harmony_pi_topology.testing.hearing import Hearer
from harmony_pi_topology.testing.network_contract import NetworkConfiguratorContract
from harmony_pi_topology.testing.network_under_test import NetworkUnderTest
from tests.box import Bed, Box
from tests.soak import runs, seed
from tests.topology.box_network import NetworksOfABox, cabled, networks_of
from tests.topology.converge_a_profile import Spec, opened
from tests.topology.killing import killed

WIRE = NetworkConfiguratorContract.WIRE
BUS = NetworkConfiguratorContract.BUS
FIRST = NetworkConfiguratorContract.FIRST
GOOD, BAD = NetworkConfiguratorContract.GOOD, NetworkConfiguratorContract.BAD


@pytest.fixture(scope="module")
def wired(pi: Box, bed: Bed) -> Box:
    """A Pi with a second cable."""
    cabled(pi, bed.name)
    return pi


@pytest.fixture
async def networks(wired: Box, bed: Bed, tmp_path: Path) -> AsyncGenerator[NetworksOfABox]:
    async with networks_of(wired, bed.name, tmp_path) as networks:
        yield networks


class TestNetworkManagerInABox(NetworkConfiguratorContract):
    @pytest.fixture
    def host(self, networks: NetworksOfABox) -> NetworkUnderTest:
        return networks.under_test()


OFFICE = NetworkProfile(
    name="office",
    link=Ethernet(interface=WIRE),
    ipv4=Ipv4(method="manual", addresses=(GOOD,)),
    confirm_within_s=5,
)
CUT_OFF = OFFICE.model_copy(update={"ipv4": Ipv4(method="manual", addresses=(BAD,))})


async def test_a_device_that_loses_its_power_in_a_trial_comes_back_as_it_was(
    boot: Callable[[], Box], bed: Bed, tmp_path: Path
) -> None:
    box = boot()
    cabled(box, bed.name)
    networks = NetworksOfABox(box, bed.name, tmp_path)
    await networks.bystander.silence(False)
    await networks.bystander.make_strange("start", WIRE, FIRST)
    host = networks.under_test()
    await host.apply_one(OFFICE)
    await host.look(CUT_OFF.model_copy(update={"confirm_within_s": 600}))
    new = OFFICE.model_copy(update={"name": "new", "ipv4": CUT_OFF.ipv4, "state": "kept"})
    await host.apply_one(new)
    assert await networks.bystander.read("office", "ipv4.addresses") == (BAD,)
    await networks.close()
    await asyncio.to_thread(box.power_cut)
    await asyncio.to_thread(box.power_on)
    cabled(box, bed.name)
    again = networks.anew()
    await again.bystander.silence(False)
    host = again.under_test()
    while await again.bystander.in_use(WIRE) is None:
        await asyncio.sleep(0.1)
    assert await again.bystander.read("office", "ipv4.addresses") == (GOOD,)
    assert isinstance(await host.expect_failure(CUT_OFF), NetworkRolledBack)
    # Which of the two comes up at boot is NetworkManager's choice: the one last used, to the second.
    # What was confirmed once is in use again with the first look.
    await host.apply_one(OFFICE)
    await host.wait_used(WIRE, "office")
    await host.has(WIRE, GOOD)
    assert (await host.look(OFFICE)).actions == ()
    await again.close()


async def test_a_kept_profile_that_leads_nowhere_is_not_taken_at_the_next_boot(
    boot: Callable[[], Box], bed: Bed, tmp_path: Path
) -> None:
    box = boot()
    cabled(box, bed.name)
    networks = NetworksOfABox(box, bed.name, tmp_path)
    await networks.bystander.silence(False)
    await networks.bystander.make_strange("start", WIRE, FIRST)
    host = networks.under_test()
    await host.apply_one(OFFICE)
    await host.bystander.delete("start")
    nowhere = CUT_OFF.model_copy(update={"name": "nowhere", "state": "kept", "priority": 999})
    await host.apply_one(nowhere)
    await networks.close()
    await asyncio.to_thread(box.reboot)
    cabled(box, bed.name)
    again = networks.anew()
    await again.bystander.silence(False)
    host = again.under_test()
    await host.wait_used(WIRE, "office")  # by NetworkManager alone
    await host.has(WIRE, GOOD)
    assert await again.bystander.reachable()
    assert (await host.look(nowhere)).actions == ()
    assert await again.bystander.profiles() == {"office", "nowhere"}
    await again.close()


async def test_an_interface_that_somebody_makes_in_a_trial_is_left_alone(
    networks: NetworksOfABox,
) -> None:
    """As podman does, whenever a container is started."""
    host, bystander = networks.under_test(), networks.bystander
    await host.look(CUT_OFF)
    await bystander.run("ip", "link", "add", "theirs0", "type", "bridge")
    await bystander.run("ip", "address", "add", "10.99.0.1/24", "dev", "theirs0")
    await bystander.run("ip", "link", "set", "theirs0", "up")
    while await bystander.in_use("theirs0") is None:
        await asyncio.sleep(0.02)  # NetworkManager has seen it
    assert isinstance(await host.expect_failure(CUT_OFF), NetworkRolledBack)
    await host.wait_used(WIRE, "start")
    assert await bystander.addresses("theirs0") == {"10.99.0.1/24"}
    await bystander.run("ip", "link", "delete", "theirs0")


async def test_a_cable_that_was_out_brings_the_profile_back_by_itself(
    networks: NetworksOfABox,
) -> None:
    host, bystander = networks.under_test(), networks.bystander
    await bystander.delete("start")
    await bystander.silence(True)
    await bystander.make_strange("start", WIRE, FIRST)
    await bystander.silence(False)
    await host.apply_one(OFFICE)
    await networks.cable(plugged_in=False)
    while await bystander.in_use(WIRE) is not None:
        await asyncio.sleep(0.02)
    change = await host.look(OFFICE)
    assert change.actions == ()
    assert change.pending is not None
    assert "waits for a cable" in change.pending.message
    change = await host.look(CUT_OFF)  # cannot be tried now, so what is there stays
    assert change.actions == ()
    assert change.pending is not None
    assert await bystander.read("office", "ipv4.addresses") == (GOOD,)
    await networks.cable(plugged_in=True)
    await host.wait_used(WIRE, "office")
    assert (await host.apply_one(OFFICE)).actions == ()


async def test_an_address_that_another_device_has_is_a_failure_and_taken_back(
    networks: NetworksOfABox,
) -> None:
    host = networks.under_test()
    taken = OFFICE.model_copy(update={"ipv4": Ipv4(method="manual", addresses=(f"{BUS}/24",))})
    assert isinstance(await host.expect_failure(taken), NetworkRolledBack)
    await host.wait_used(WIRE, "start")


async def test_what_network_manager_refuses_is_told_and_nothing_is_touched(
    networks: NetworksOfABox,
) -> None:
    host = networks.under_test()
    identity = await networks.bystander.identity("start")
    vlan = NetworkProfile(name="seven", link=Vlan(interface=WIRE, parent="eth77", id=7))
    error = await host.expect_failure(vlan)
    assert isinstance(error, NetworkFailed | InvalidResource)
    assert await networks.bystander.profiles() == {"start"}
    assert await networks.bystander.identity("start") == identity


@pytest.mark.parametrize("state", ["kept", "up"])
async def test_a_setting_that_network_manager_does_not_keep_is_told_by_its_name(
    networks: NetworksOfABox, state: str
) -> None:
    """It keeps a name server once, however often it was given."""
    host, bystander = networks.under_test(), networks.bystander
    identity = await bystander.identity("start")
    ipv4 = Ipv4(method="manual", addresses=(GOOD,), dns=(BUS, BUS))
    twice = OFFICE.model_copy(update={"ipv4": ipv4, "state": state})
    for _ in range(2):
        error = await host.expect_failure(twice)
        assert isinstance(error, DidNotStick)
        told = (error.field, error.wanted, error.found, error.resource)
        assert told == ("ipv4.dns", f"{BUS}; {BUS}", BUS, "network:office")
    assert await bystander.identity("start") == identity
    assert await bystander.profiles() == ({"start", "office"} if state == "kept" else {"start"})
    once = twice.model_copy(update={"ipv4": ipv4.model_copy(update={"dns": (BUS,)})})
    await host.apply_one(once)
    assert (await host.look(once)).actions == ()
    await host.remove_one("office")
    assert await bystander.profiles() == {"start"}


async def test_a_gateway_that_a_profile_taken_over_has_no_use_for_is_told(
    networks: NetworksOfABox,
) -> None:
    host, bystander = networks.under_test(), networks.bystander
    await bystander.make("office", WIRE, GOOD)
    await bystander.modify("office", "ipv4.never-default", "yes")
    ipv4 = Ipv4(method="manual", addresses=(GOOD,), gateway=BUS)
    error = await host.expect_failure(
        OFFICE.model_copy(update={"ipv4": ipv4, "state": "kept", "take_over": True})
    )
    assert isinstance(error, DidNotStick)
    assert (error.field, error.wanted, error.found) == ("ipv4.gateway", BUS, "nothing")


async def test_a_password_that_network_manager_was_told_not_to_keep_is_kept(
    networks: NetworksOfABox,
) -> None:
    """As some tools have it: each user has one of their own, and the device none."""
    host, bystander = networks.under_test(), networks.bystander
    given = "type wifi con-name home ssid home wifi-sec.key-mgmt wpa-psk wifi-sec.psk-flags 1"
    await bystander.nmcli("connection", "add", *given.split())
    bystander.put_secret("password", b"correct horse")
    home = NetworkProfile(
        name="home", link=Wifi(ssid="home", psk=SecretRef(secret="password")), take_over=True
    )
    change = await host.apply_one(home)
    assert "correct" not in str(change)
    assert await bystander.read("home", "802-11-wireless-security.psk-flags") == ("0",)
    assert (await host.look(home)).actions == ()


async def test_a_vlan_s_profile_is_kept(networks: NetworksOfABox) -> None:
    """To bring one up needs a module of the kernel that not every machine of tests has."""
    host = networks.under_test()
    vlan = NetworkProfile(
        name="seven",
        link=Vlan(interface=f"{WIRE}.7", parent=WIRE, id=7),
        ipv6=Ipv6(method="manual", addresses=("2001:db8::7/64",), dns=("2001:db8::1",)),
        state="kept",
    )
    assert (await host.apply_one(vlan)).actions == ("created",)
    assert (await host.look(vlan)).actions == ()
    assert await networks.bystander.read("seven", "vlan.id") == ("7",)
    assert await networks.bystander.read("seven", "ipv6.dns") == ("2001:db8::1",)
    changed = vlan.model_copy(update={"link": vlan.link.model_copy(update={"id": 8})})
    assert (await host.apply_one(changed)).actions == ("changed vlan.id",)


async def test_it_survives_a_system_bus_that_is_started_anew(networks: NetworksOfABox) -> None:
    host, told = networks.under_test(), Hearer()
    await host.apply_one(OFFICE)
    await host.network.watch(["office"], told)
    await networks.bystander.run("systemctl", "restart", "dbus.service")
    while not (await host.network.availability()).available:
        await asyncio.sleep(0.05)
    await told.hears("office")
    await host.wait_used(WIRE, "office")
    assert (await host.apply_one(OFFICE)).actions == ()
    told.heard.clear()
    await networks.bystander.drop_address(WIRE, GOOD)
    await told.hears("office")


async def test_it_hears_of_the_network_over_a_networkmanager_that_is_started_anew(
    networks: NetworksOfABox,
) -> None:
    host, told = networks.under_test(), Hearer()
    await host.apply_one(OFFICE)
    await host.network.watch(["office"], told)
    await networks.bystander.run("systemctl", "restart", "NetworkManager.service")
    await told.hears("office")
    await host.wait_used(WIRE, "office")
    await told.is_at_rest()
    told.heard.clear()
    await networks.bystander.drop_address(WIRE, GOOD)
    await told.hears("office")


_NM, _NM_PATH = "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"


async def test_after_networkmanager_was_started_anew_another_s_checkpoint_is_not_taken_for_ours(
    networks: NetworksOfABox,
) -> None:
    """It gives the same names to those that come then."""
    host, bystander = networks.under_test(), networks.bystander
    longer = {"confirm_within_s": 600}

    async def list_checkpoints() -> str:
        asked = (_NM, _NM_PATH, _NM, "Checkpoints")
        return (await bystander.run("busctl", "get-property", *asked)).stdout.decode().strip()

    await host.apply_one(OFFICE)
    await bystander.begin_anew()
    async with asyncio.timeout(30):
        # NetworkManager may not have all in order yet, and then nothing is begun.
        while (ours := await list_checkpoints()) == "ao 0":
            await host.look(CUT_OFF.model_copy(update=longer))
    await bystander.begin_anew()
    await bystander.run("nm-online", "--quiet", "--wait-for-startup")
    # Of all devices, and without an end.
    theirs = (*("busctl", "call", _NM, _NM_PATH, _NM, "CheckpointCreate", "aouu"), "0", "0", "0")
    await bystander.run(*theirs)
    assert await list_checkpoints() == ours
    error = await host.expect_failure(CUT_OFF.model_copy(update=longer))
    assert isinstance(error, NetworkRolledBack)
    assert await list_checkpoints() == ours, "it is theirs"
    await host.wait_used(WIRE, "office")
    await host.has(WIRE, GOOD)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_killed_at_any_moment_the_end_is_the_same(
    networks: NetworksOfABox, tmp_path: Path
) -> None:
    """Every time another address is wished for; every third time it is one that cuts the device off."""
    bystander = networks.bystander
    dice = random.Random(seed())
    for run in range(runs(50, part=10)):
        good = OFFICE.model_copy(
            update={"ipv4": Ipv4(method="manual", addresses=(f"10.79.0.{run % 100 + 20}/24",))}
        )
        cuts_off = run % 3 == 2
        spec = Spec(
            address=networks.address,
            memory=str(tmp_path),
            probe=bystander.box.inside(bystander.probe),
            profile=(CUT_OFF if cuts_off else good).model_dump_json(),
        )
        await killed("tests.topology.converge_a_profile", spec, after_s=dice.uniform(0, 1.5))
        network = opened(spec)
        host = NetworkUnderTest(network=network, bystander=bystander, reopen=networks.opened)
        if cuts_off:
            assert isinstance(await host.expect_failure(CUT_OFF), NetworkRolledBack)
        await host.apply_one(good)
        await host.has(WIRE, *good_addresses(good))
        assert await bystander.profiles() == {"start", "office"}
        assert await bystander.is_on_disk("office")
        assert await bystander.read("office", "connection.autoconnect") == ("yes",)
        assert (await host.look(good)).actions == ()
        if cuts_off:
            await host.remove_one("office")  # what was refused may be tried again
        assert not list(tmp_path.glob("originals/*"))
        await network.close()


def good_addresses(profile: NetworkProfile) -> tuple[str, ...]:
    assert profile.ipv4 is not None
    return profile.ipv4.addresses or ()

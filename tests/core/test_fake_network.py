"""A network in memory passes the contract of networks."""

from __future__ import annotations

from typing import Any

import pytest

from harmony_core.errors import DidNotStick, NetworkRolledBack
from harmony_core.resources import (
    Bond,
    Ethernet,
    Ipv4,
    NetworkProfile,
    Wifi,
    Wireguard,
    WireguardPeer,
)
from harmony_pi_topology.testing.fake_network import FakeNetwork
from harmony_pi_topology.testing.network_contract import NetworkConfiguratorContract
from harmony_pi_topology.testing.network_under_test import NetworkUnderTest


class TestFakeNetwork(NetworkConfiguratorContract):
    @pytest.fixture
    async def host(self) -> NetworkUnderTest:
        network = FakeNetwork(interfaces=[self.WIRE], bus=self.BUS, patient=False)
        await network.make_strange("start", self.WIRE, self.FIRST)
        return NetworkUnderTest(network=network, bystander=network, reopen=network.reopen)


@pytest.fixture
async def slow() -> NetworkUnderTest:
    """A way to the control plane on which a connection takes as long as most of a trial."""
    network = FakeNetwork(interfaces=["eth1"], bus="10.79.0.1", patient=False)
    await network.make_strange("start", "eth1", "10.79.0.9/24")
    network.connecting_takes_s = 3.0
    return NetworkUnderTest(network=network, bystander=network, reopen=network.reopen)


def office(address: str, **fields: Any) -> NetworkProfile:
    ipv4 = Ipv4(method="manual", addresses=(address,))
    given = {"link": Ethernet(interface="eth1"), "ipv4": ipv4, "confirm_within_s": 5}
    return NetworkProfile.model_validate({"name": "office", **given, **fields})


@pytest.mark.parametrize("name", ["office", "start"])
async def test_a_connection_that_came_about_after_a_change_was_taken_back_confirms_nothing(
    slow: NetworkUnderTest, name: str
) -> None:
    wish = office("10.80.0.2/24", name=name, take_over=True)
    assert isinstance(await slow.expect_failure(wish), NetworkRolledBack)
    assert await slow.bystander.addresses("eth1") == {"10.79.0.9/24"}
    assert isinstance(await slow.expect_failure(wish), NetworkRolledBack)
    assert await slow.bystander.profiles() == {"start"}


async def test_a_wifi_network_that_was_never_used_is_used_only_where_no_other_is(
    slow: NetworkUnderTest,
) -> None:
    device = slow.bystander
    assert isinstance(device, FakeNetwork)
    wireless = Wifi(ssid="next site", interface="eth1")
    wish = office("10.79.0.2/24", name="wireless", link=wireless, priority=100)
    await slow.apply_one(wish)
    await device.reboot()
    assert await device.in_use("eth1") == "start"
    await device.delete("start")
    await device.reboot()
    assert await device.in_use("eth1") == "wireless"
    assert (await slow.apply_one(wish)).actions == (NetworkConfiguratorContract.CONFIRMED,)
    assert await device.read("wireless", "connection.autoconnect-priority") == ("100",)


async def test_what_does_not_stick_once_a_change_is_confirmed_is_told_by_its_name(
    slow: NetworkUnderTest,
) -> None:
    device = slow.bystander
    assert isinstance(device, FakeNetwork)
    wish = office("10.79.0.2/24", confirm_within_s=60)
    assert (await slow.look(wish)).pending is not None
    device.forgets.add("connection.autoconnect")
    for _ in range(2):
        error = await slow.expect_failure(wish)
        assert isinstance(error, DidNotStick)
        assert (error.field, error.wanted, error.found) == (
            "connection.autoconnect",
            "true",
            "false",
        )
    device.forgets.clear()
    assert (await slow.apply_one(wish)).actions == ("changed connection.autoconnect",)
    assert (await slow.look(wish)).actions == ()


async def test_what_was_not_put_back_is_not_told_as_put_back(slow: NetworkUnderTest) -> None:
    device = slow.bystander
    assert isinstance(device, FakeNetwork)
    await device.make_strange("office", "eth1", "10.79.0.3/24")
    await device.bring_up("start")
    await slow.apply_one(office("10.79.0.2/24", state="kept", take_over=True))
    device.forgets.add("ipv4.addresses")
    with pytest.raises(DidNotStick, match="as it was before did not stick"):
        await slow.remove_one("office")


@pytest.mark.parametrize(("address", "ends"), [("10.79.0.2/24", "bond"), ("10.80.0.2/24", "start")])
async def test_a_bond_and_its_port_are_tried_together(
    slow: NetworkUnderTest, address: str, ends: str
) -> None:
    device = slow.bystander
    assert isinstance(device, FakeNetwork)
    device.connecting_takes_s = 0.0
    bond = office(address, name="bond", link=Bond(interface="bond0"))
    cable = Ethernet(interface="eth1", bond="bond0")
    port = NetworkProfile(name="port", link=cable, confirm_within_s=5)
    if ends == "bond":
        assert NetworkConfiguratorContract.CONFIRMED in (await slow.apply_one(bond, port)).actions
        assert await device.in_use("eth1") == "port"
        assert await device.addresses("bond0") == {address}
        assert [each.actions for each in await slow.looks(bond, port)] == [(), ()]
    else:
        assert isinstance(await slow.expect_failure(bond, port), NetworkRolledBack)
        assert isinstance(await slow.expect_failure(port), NetworkRolledBack)
        assert await device.in_use("eth1") == "start"
        assert await device.profiles() == {"start"}


TUNNEL = Wireguard(
    interface="wg0",
    peers=(
        WireguardPeer(
            public_key="AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", allowed_ips=("0.0.0.0/0",)
        ),
    ),
)


async def test_a_tunnel_that_cuts_the_device_off_is_taken_back_and_its_key_stays(
    slow: NetworkUnderTest,
) -> None:
    device = slow.bystander
    assert isinstance(device, FakeNetwork)
    device.connecting_takes_s = 0.0
    device.silent_after_changes = True
    wish = office("10.8.0.2/24", name="vpn", link=TUNNEL)
    assert isinstance(await slow.expect_failure(wish), NetworkRolledBack)
    assert await device.profiles() == {"start"}
    assert await device.addresses("wg0") == set()
    made = device.own_secrets()
    assert len(made) == 1
    device.silent_after_changes = False
    changed = wish.model_copy(update={"link": TUNNEL.model_copy(update={"listen_port": 51820})})
    change = await slow.apply_one(changed)
    assert NetworkConfiguratorContract.CONFIRMED in change.actions
    assert await device.addresses("wg0") == {"10.8.0.2/24"}
    assert device.own_secrets() == made
    await slow.remove_one("vpn")
    assert device.own_secrets() == {}


async def test_the_key_of_a_tunnel_that_could_not_be_begun_goes_with_its_wish(
    slow: NetworkUnderTest,
) -> None:
    device = slow.bystander
    assert isinstance(device, FakeNetwork)
    await device.silence(True)
    await slow.expect_failure(office("10.8.0.2/24", name="vpn", link=TUNNEL))
    assert len(device.own_secrets()) == 1
    await slow.remove_one("vpn")
    assert device.own_secrets() == {}


class Impatient(FakeNetwork):
    """Somebody brings the old profile up again before a connection has come about."""

    async def reachable(self) -> bool:
        await self.bring_up("start")
        return await super().reachable()


async def test_what_was_in_use_before_a_connection_and_not_after_it_is_not_proven() -> None:
    device = Impatient(interfaces=["eth1"], bus="10.79.0.1", patient=False)
    await device.make_strange("start", "eth1", "10.79.0.9/24")
    host = NetworkUnderTest(network=device, bystander=device, reopen=device.reopen)
    wish = office("10.80.0.2/24", state="kept")
    await host.apply_one(wish)
    await device.bring_up("office")
    assert (await host.apply_one(wish)).actions == ()
    assert await device.read("office", "connection.autoconnect") == ("no",)


async def test_nor_does_it_confirm_a_removal(slow: NetworkUnderTest) -> None:
    await slow.apply_one(office("10.79.0.2/24", confirm_within_s=60))
    await slow.apply_one(office("10.79.0.2/24", confirm_within_s=5))
    await slow.bystander.delete("start")
    with pytest.raises(NetworkRolledBack):
        await slow.remove_one("office")
    assert await slow.bystander.addresses("eth1") == {"10.79.0.2/24"}
    with pytest.raises(NetworkRolledBack):
        await slow.remove_one("office")

"""What every network that Scores configure must do: `NetworkConfigurator`, as tests.

::

    class TestMyNetwork(NetworkConfiguratorContract):
        @pytest.fixture
        def host(self) -> NetworkUnderTest:
            return NetworkUnderTest(network=MyNetwork(…), bystander=…, reopened=…)

The device has one cable, in `WIRE`, and its control plane is `BUS`, reached by that alone. In the beginning
a stranger's profile `start` is in use there, with the address `FIRST`.
"""

from __future__ import annotations

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.errors import (
    CapabilityUnavailable,
    InvalidResource,
    NetworkFailed,
    NetworkRolledBack,
    NotOurs,
    OwnershipConflict,
    SecretMissing,
)
from harmony_core.resources import (
    Bridge,
    Connected,
    Disconnected,
    Ethernet,
    Ipv4,
    Ipv4Route,
    SecretRef,
    Wifi,
)
from harmony_core.secret_values import secret_word

from .network_under_test import NetworkUnderTest
from .network_watch_contract import NetworkWatchContract

__all__ = ["NetworkConfiguratorContract"]


HOSTILE = r" cor;rect=ho\nrse\; #\x41é "
"""A password with all that has a meaning in the files of profiles."""


def wifi(secret: str) -> Wifi:
    """Return a wireless network whose password is that secret."""
    return Wifi(ssid="Büro", psk=SecretRef(secret=secret))


class NetworkConfiguratorContract(NetworkWatchContract):
    """Subclass with a name that pytest collects, and a fixture `host`."""

    async def test_what_is_not_there_is_observed_as_none(self, host: NetworkUnderTest) -> None:
        assert await host.network.observe("office") is None

    async def test_a_profile_is_made_and_brought_up_and_confirmed_and_only_then_on_disk(
        self, host: NetworkUnderTest
    ) -> None:
        first = await host.look(self.profile())
        assert first.actions == ("created", "brought up")
        assert first.pending is not None
        assert not await host.bystander.is_on_disk("office")
        change = await host.apply_one(self.profile())
        assert change.actions == (self.CONFIRMED,)
        assert change.after == Connected(interface=self.WIRE, addresses=(self.GOOD,), gateway=None)
        assert await host.network.observe("office") == change.after
        assert await host.bystander.is_on_disk("office")
        assert await host.bystander.in_use(self.WIRE) == "office"
        assert await host.bystander.addresses(self.WIRE) == {self.GOOD}
        assert await host.bystander.read("office", "connection.autoconnect") == ("yes",)

    async def test_one_that_is_right_is_untouched(self, host: NetworkUnderTest) -> None:
        desired = self.profile()
        await host.apply_one(desired)
        identity = await host.bystander.identity("office")
        for _ in range(3):
            change = await host.look(desired)
            assert change.actions == ()
            assert change.pending is None
        assert await host.bystander.identity("office") == identity

    async def test_an_agent_that_starts_again_finds_it_as_it_was(
        self, host: NetworkUnderTest
    ) -> None:
        await host.apply_one(self.profile())
        identity = await host.bystander.identity("office")
        change = await attrs.evolve(host, network=host.reopen()).look(self.profile())
        assert change.actions == ()
        assert change.pending is None
        assert await host.bystander.identity("office") == identity

    async def test_a_dry_run_changes_nothing_and_says_what_applying_then_does(
        self, host: NetworkUnderTest
    ) -> None:
        planned = await host.plan_one(self.profile())
        assert planned.after == Connected(interface=self.WIRE, addresses=(self.GOOD,), gateway=None)
        assert await host.bystander.profiles() == {"start"}
        assert (await host.look(self.profile())).actions == planned.actions
        await host.apply_one(self.profile())
        identity = await host.bystander.identity("office")
        other = self.profile(self.ALSO_GOOD)
        planned = await host.plan_one(other)
        assert planned.diff is not None
        assert f"+addresses={self.ALSO_GOOD}" in planned.diff
        assert await host.bystander.identity("office") == identity
        assert await host.bystander.addresses(self.WIRE) == {self.GOOD}
        assert (await host.look(other)).actions == planned.actions

    async def test_a_change_that_keeps_the_way_is_confirmed(self, host: NetworkUnderTest) -> None:
        await host.apply_one(self.profile())
        change = await host.apply_one(self.profile(self.ALSO_GOOD))
        assert change.actions == ("changed ipv4.addresses", "applied", self.CONFIRMED)
        assert await host.bystander.addresses(self.WIRE) == {self.ALSO_GOOD}
        assert await host.bystander.is_on_disk("office")

    async def test_a_new_profile_that_cuts_the_device_off_is_taken_back_and_said(
        self, host: NetworkUnderTest
    ) -> None:
        error = await host.expect_failure(self.profile(self.BAD))
        assert isinstance(error, NetworkRolledBack)
        assert error.resource == "network:office"
        assert "within 5 s" in error.message
        await host.wait_used(self.WIRE, "start")
        assert await host.bystander.profiles() == {"start"}

    async def test_a_change_that_cuts_the_device_off_is_taken_back_and_said(
        self, host: NetworkUnderTest
    ) -> None:
        await host.apply_one(self.profile())
        error = await host.expect_failure(self.profile(self.BAD))
        assert isinstance(error, NetworkRolledBack)
        await host.wait_used(self.WIRE, "office")
        assert await host.bystander.read("office", "ipv4.addresses") == (self.GOOD,)
        assert await host.bystander.is_on_disk("office")
        await host.observes("office", self.GOOD)  # the profile is back before its address is
        assert await host.bystander.addresses(self.WIRE) == {self.GOOD}
        assert (await host.apply_one(self.profile())).actions == ()

    async def test_what_was_taken_back_is_not_tried_again(self, host: NetworkUnderTest) -> None:
        await host.expect_failure(self.profile(self.BAD))
        await host.wait_used(self.WIRE, "start")
        identity = await host.bystander.identity("start")
        again = attrs.evolve(host, network=host.reopen())
        for _ in range(2):
            assert isinstance(await again.expect_failure(self.profile(self.BAD)), NetworkRolledBack)
        assert await host.bystander.identity("start") == identity
        assert self.CONFIRMED in (await again.apply_one(self.profile())).actions

    async def test_once_removed_what_was_taken_back_may_be_tried_again(
        self, host: NetworkUnderTest
    ) -> None:
        await host.expect_failure(self.profile(self.BAD))
        await host.remove_one("office")
        change = await host.look(self.profile(self.BAD))
        assert change.actions == ("created", "brought up")

    async def test_without_the_agent_a_change_that_cuts_off_is_taken_back_all_the_same(
        self, host: NetworkUnderTest
    ) -> None:
        await host.apply_one(self.profile())
        await host.look(self.profile(self.BAD))
        assert await host.bystander.read("office", "ipv4.addresses") == (self.BAD,)
        again = attrs.evolve(host, network=host.reopen())
        await host.bystander.pass_time(6)
        await host.wait_used(self.WIRE, "office")
        assert await host.bystander.read("office", "ipv4.addresses") == (self.GOOD,)
        (result,) = await again.network.converge([self.profile(self.BAD)], apply=True)
        assert isinstance(result, NetworkRolledBack)

    async def test_without_the_agent_a_new_profile_that_cuts_off_is_not_used_again(
        self, host: NetworkUnderTest
    ) -> None:
        await host.look(self.profile(self.BAD, priority=100))
        again = attrs.evolve(host, network=host.reopen())
        await host.bystander.pass_time(6)
        await host.wait_used(self.WIRE, "start")
        await host.bystander.take_down("start")
        assert await host.bystander.in_use(self.WIRE) is None
        await host.bystander.bring_up("start")
        error = await again.expect_failure(self.profile(self.BAD, priority=100))
        assert isinstance(error, NetworkRolledBack)
        assert await host.bystander.profiles() == {"start"}

    async def test_an_agent_that_starts_again_goes_on_with_a_trial(
        self, host: NetworkUnderTest
    ) -> None:
        await host.look(self.profile())
        again = attrs.evolve(host, network=host.reopen())
        assert (await again.apply_one(self.profile())).actions == (self.CONFIRMED,)
        await host.bystander.pass_time(6)
        assert await host.bystander.in_use(self.WIRE) == "office"

    async def test_a_daemon_that_starts_again_in_a_trial_leaves_it_to_the_agent(
        self, host: NetworkUnderTest
    ) -> None:
        await host.look(self.profile())
        await host.wait_used(self.WIRE, "office")
        await host.bystander.begin_anew()
        assert (await host.apply_one(self.profile())).actions == (self.CONFIRMED,)
        await host.look(self.profile(self.BAD))
        await host.bystander.begin_anew()
        assert isinstance(await host.expect_failure(self.profile(self.BAD)), NetworkRolledBack)
        await host.wait_used(self.WIRE, "office")
        await host.has(self.WIRE, self.GOOD)

    async def test_a_newer_wish_ends_the_trial_of_an_older_one(
        self, host: NetworkUnderTest
    ) -> None:
        await host.look(self.profile(self.BAD))
        change = await host.apply_one(self.profile(self.ALSO_GOOD))
        assert self.CONFIRMED in change.actions
        assert await host.bystander.addresses(self.WIRE) == {self.ALSO_GOOD}
        await host.bystander.pass_time(6)
        assert await host.bystander.in_use(self.WIRE) == "office"

    async def test_what_was_confirmed_once_comes_back_without_the_control_plane(
        self, host: NetworkUnderTest
    ) -> None:
        await host.apply_one(self.profile())
        await host.bystander.silence(True)
        await host.bystander.take_down("office")
        change = await host.apply_one(self.profile())
        assert change.actions == ("brought up",)
        await host.bystander.delete("office")
        change = await host.apply_one(self.profile())
        assert change.actions == ("created", "brought up")
        assert await host.bystander.is_on_disk("office")
        assert await host.bystander.addresses(self.WIRE) == {self.GOOD}

    async def test_what_could_not_be_confirmed_is_not_begun(self, host: NetworkUnderTest) -> None:
        await host.bystander.silence(True)
        error = await host.expect_failure(self.profile())
        assert isinstance(error, CapabilityUnavailable)
        assert await host.bystander.profiles() == {"start"}
        await host.bystander.silence(False)
        assert self.CONFIRMED in (await host.apply_one(self.profile())).actions

    async def test_settings_that_nobody_spoke_of_stay(self, host: NetworkUnderTest) -> None:
        """A network update must not wipe routes that it does not know (home-assistant/supervisor#3566)."""
        await host.apply_one(self.profile())
        await host.bystander.modify("office", "ipv4.routes", "10.99.0.0/16 10.79.0.1")
        await host.bystander.modify("office", "ipv4.dhcp-hostname", "kiosk")
        await host.apply_one(self.profile(self.ALSO_GOOD))
        assert await host.bystander.read("office", "ipv4.routes") == ("10.99.0.0/16 10.79.0.1",)
        assert await host.bystander.read("office", "ipv4.dhcp-hostname") == ("kiosk",)

    async def test_what_we_set_once_and_nobody_wishes_any_more_goes_back(
        self, host: NetworkUnderTest
    ) -> None:
        route = Ipv4Route(to="10.99.0.0/16", via=self.BUS, metric=50)
        given = {"gateway": self.BUS, "dns": (self.BUS,), "routes": (route,), "metric": 7}
        await host.apply_one(self.change_ipv4(self.profile(), **given, dns_search=("example.org",)))
        assert await host.bystander.read("office", "ipv4.gateway") == (self.BUS,)
        assert await host.bystander.read("office", "ipv4.dns") == (self.BUS,)
        assert await host.bystander.read("office", "ipv4.route-metric") == ("7",)
        routes = await host.bystander.read("office", "ipv4.routes")
        assert routes == (f"10.99.0.0/16 {self.BUS} 50",)
        await host.apply_one(self.profile())
        for setting in ("gateway", "dns", "dns-search", "routes", "route-metric"):
            assert await host.bystander.read("office", f"ipv4.{setting}") in {(), ("-1",)}

    async def test_a_setting_that_a_bystander_changed_is_changed_back(
        self, host: NetworkUnderTest
    ) -> None:
        await host.apply_one(self.profile())
        await host.bystander.silence(True)
        await host.bystander.modify("office", "ipv4.addresses", self.BAD)
        change = await host.apply_one(self.profile())
        assert change.actions == ("changed ipv4.addresses",)
        await host.bystander.modify("office", "ipv4.addresses", self.BAD)
        await host.bystander.bring_up("office")
        change = await host.apply_one(self.profile())
        assert change.actions == ("changed ipv4.addresses", "applied")
        assert await host.bystander.addresses(self.WIRE) == {self.GOOD}

    async def test_an_address_that_was_taken_off_comes_back(self, host: NetworkUnderTest) -> None:
        await host.apply_one(self.profile())
        await host.bystander.drop_address(self.WIRE, self.GOOD)
        identity = await host.bystander.identity("office")
        change = await host.apply_one(self.profile())
        assert change.actions == ("applied",)
        assert await host.bystander.addresses(self.WIRE) == {self.GOOD}
        assert await host.bystander.identity("office") == identity

    async def test_a_priority_is_changed_without_touching_what_is_in_use(
        self, host: NetworkUnderTest
    ) -> None:
        await host.apply_one(self.profile())
        identity = await host.bystander.identity("office")
        await host.bystander.silence(True)
        change = await host.apply_one(self.profile(priority=20, autoconnect=False))
        assert change.actions == (
            "changed connection.autoconnect, connection.autoconnect-priority",
        )
        assert await host.bystander.identity("office") == identity
        assert await host.bystander.is_on_disk("office")

    async def test_a_profile_that_is_only_kept_is_not_brought_up(
        self, host: NetworkUnderTest
    ) -> None:
        identity = await host.bystander.identity("start")
        desired = self.profile(state="kept", priority=100)
        change = await host.apply_one(desired)
        assert change.actions == ("created",)
        assert isinstance(change.after, Disconnected)
        assert await host.bystander.is_on_disk("office")
        assert (await host.look(desired)).actions == ()
        assert await host.bystander.identity("start") == identity
        assert await host.bystander.read("office", "connection.autoconnect") == ("no",)

    async def test_one_that_is_only_kept_is_used_by_itself_once_it_was_reached_by(
        self, host: NetworkUnderTest
    ) -> None:
        desired = self.profile(state="kept")
        await host.apply_one(desired)
        await host.bystander.silence(True)
        await host.bystander.bring_up("office")
        change = await host.look(desired)
        assert change.actions == ()
        assert change.pending is not None
        assert await host.bystander.read("office", "connection.autoconnect") == ("no",)
        await host.bystander.silence(False)
        assert (await host.apply_one(desired)).actions == (self.CONFIRMED,)
        assert await host.bystander.read("office", "connection.autoconnect") == ("yes",)
        assert (await host.look(desired)).actions == ()

    async def test_what_was_up_and_confirmed_may_be_kept_as_it_is(
        self, host: NetworkUnderTest
    ) -> None:
        await host.apply_one(self.profile())
        assert (await host.look(self.profile(state="kept"))).actions == ()
        await host.bystander.take_down("office")
        assert (await host.look(self.profile(state="kept"))).actions == ()
        assert await host.bystander.read("office", "connection.autoconnect") == ("yes",)

    async def test_whether_what_is_in_use_is_at_the_next_boot_stays_until_it_was_reached_by(
        self, host: NetworkUnderTest
    ) -> None:
        desired = self.profile(self.FIRST, name="start", take_over=True, autoconnect=False)
        await host.bystander.silence(True)
        change = await host.look(desired)
        assert change.actions == ()
        assert change.pending is not None
        assert await host.bystander.read("start", "connection.autoconnect") == ("yes",)
        await host.bystander.silence(False)
        assert (await host.apply_one(desired)).actions == (self.CONFIRMED,)
        assert await host.bystander.read("start", "connection.autoconnect") == ("no",)

    async def test_what_is_in_use_is_not_kept_so_that_nobody_would_use_it_again(
        self, host: NetworkUnderTest
    ) -> None:
        await host.apply_one(self.profile())
        error = await host.expect_failure(self.profile(state="kept", autoconnect=False))
        assert isinstance(error, NetworkFailed)
        assert "another profile up" in error.message
        assert await host.bystander.read("office", "connection.autoconnect") == ("yes",)
        await host.bystander.bring_up("start")
        await host.apply_one(self.profile(state="kept", autoconnect=False))
        assert await host.bystander.read("office", "connection.autoconnect") == ("no",)

    async def test_a_wifi_profile_is_kept_and_its_password_is_not_told(
        self, host: NetworkUnderTest
    ) -> None:
        host.bystander.put_secret("password", b"correct horse\n")
        link = wifi("password")
        desired = self.profile(name="wireless", link=link, ipv4=Ipv4(), priority=7)
        planned = await host.plan_one(desired)
        change = await host.apply_one(desired)
        assert change.actions == ("created",)
        assert "correct" not in f"{planned}{change}"
        assert (await host.look(desired)).actions == ()
        assert await host.bystander.read("wireless", "802-11-wireless.ssid") == ("Büro",)
        priority = await host.bystander.read("wireless", "connection.autoconnect-priority")
        assert priority == ("-999",)
        host.bystander.put_secret("password", b"battery staple\n")
        change = await host.apply_one(desired)
        assert change.actions == ("changed 802-11-wireless-security.psk",)
        assert (await host.look(desired)).actions == ()

    async def test_a_secret_of_the_fleet_is_put_in_and_told_apart_by_its_value(
        self, host: NetworkUnderTest
    ) -> None:
        """Whichever version the value is of: the same is the same."""
        psk = "802-11-wireless-security.psk"
        first, again, other = (secret_word("net", "wifi", f"{n:016x}") for n in range(3))
        for word, value in ((first, HOSTILE), (again, HOSTILE), (other, "battery staple")):
            host.bystander.put_value(word, value)
        wishes = [
            self.profile(name="wireless", link=Wifi(ssid="Büro", psk=word), ipv4=Ipv4())
            for word in (first, again, other)
        ]
        planned = await host.plan_one(wishes[0])
        change = await host.apply_one(wishes[0])
        assert change.actions == ("created",)
        assert HOSTILE not in f"{planned}{change}"
        assert (await host.look(wishes[0])).actions == ()
        assert (await host.look(wishes[1])).actions == ()
        await host.bystander.modify("wireless", psk, "of somebody else")
        planned = await host.plan_one(wishes[1])
        assert planned.actions == (f"changed {psk}",)
        assert "somebody" not in str(planned)
        assert (await host.apply_one(wishes[1])).actions == (f"changed {psk}",)
        assert (await host.look(wishes[0])).actions == ()
        assert (await host.apply_one(wishes[2])).actions == (f"changed {psk}",)
        assert (await host.look(wishes[2])).actions == ()

    async def test_a_secret_of_the_fleet_that_is_not_known_or_none_is_refused(
        self, host: NetworkUnderTest
    ) -> None:
        unknown, short, lines = (secret_word("net", "wifi", f"{n:016x}") for n in range(3))
        host.bystander.put_value(short, "short")
        host.bystander.put_value(lines, "correct\n[ipv4]\nhorse")
        for word, expected in (
            (unknown, SecretMissing),
            (short, InvalidResource),
            (lines, InvalidResource),
        ):
            desired = self.profile(name="wireless", link=Wifi(ssid="Büro", psk=word), ipv4=None)
            error = await host.expect_failure(desired)
            assert isinstance(error, expected)
            assert not any(each in str(error) for each in ("short", "correct", "horse"))
        assert await host.bystander.profiles() == {"start"}

    async def test_a_password_that_is_missing_or_none_is_refused(
        self, host: NetworkUnderTest
    ) -> None:
        desired = self.profile(name="wireless", link=wifi("none"), ipv4=None)
        assert isinstance(await host.expect_failure(desired), SecretMissing)
        host.bystander.put_secret("none", b"short")
        assert isinstance(await host.expect_failure(desired), InvalidResource)
        assert await host.bystander.profiles() == {"start"}

    async def test_a_bridge_and_its_port_are_tried_together(self, host: NetworkUnderTest) -> None:
        bridge = self.profile(name="bridge", link=Bridge(interface="br7", stp=False))
        port = self.profile(
            name="port", link=Ethernet(interface=self.WIRE, bridge="br7"), ipv4=None
        )
        change = await host.apply_one(bridge, port)
        assert self.CONFIRMED in change.actions
        assert await host.bystander.addresses("br7") == {self.GOOD}
        assert await host.bystander.read("bridge", "ipv6.method") == ("auto",)
        assert await host.bystander.in_use(self.WIRE) == "port"
        for change in await host.looks(bridge, port):
            assert change.actions == ()
            assert change.pending is None

    async def test_a_bridge_that_cuts_the_device_off_goes_with_its_port(
        self, host: NetworkUnderTest
    ) -> None:
        bridge = self.profile(self.BAD, name="bridge", link=Bridge(interface="br7", stp=False))
        port = self.profile(
            name="port", link=Ethernet(interface=self.WIRE, bridge="br7"), ipv4=None
        )
        assert isinstance(await host.expect_failure(bridge, port), NetworkRolledBack)
        # It may have been on its way down still when the bridge was taken back.
        assert isinstance(await host.expect_failure(port), NetworkRolledBack)
        await host.wait_used(self.WIRE, "start")
        assert await host.bystander.profiles() == {"start"}
        assert await host.bystander.addresses("br7") == set()

    async def test_an_interface_is_found_by_its_mac_address(self, host: NetworkUnderTest) -> None:
        by_mac = Ethernet(mac=await host.bystander.mac(self.WIRE))
        desired = self.profile(link=by_mac)
        planned = await host.plan_one(desired)
        change = await host.apply_one(desired)
        assert change.after == planned.after
        assert change.after == Connected(interface=self.WIRE, addresses=(self.GOOD,), gateway=None)
        assert await host.bystander.in_use(self.WIRE) == "office"
        assert await host.bystander.read("office", "connection.interface-name") == ()
        assert (await host.look(desired)).actions == ()
        change = await host.apply_one(self.profile(self.ALSO_GOOD, link=by_mac))
        assert change.actions == ("changed ipv4.addresses", "applied", self.CONFIRMED)
        error = await host.expect_failure(self.profile(self.BAD, link=by_mac))
        assert isinstance(error, NetworkRolledBack)
        await host.has(self.WIRE, self.ALSO_GOOD)

    async def test_a_mac_address_that_nothing_has_is_a_failure_and_nothing_is_touched(
        self, host: NetworkUnderTest
    ) -> None:
        nobody = Ethernet(mac="02:12:34:56:78:9a")
        error = await host.expect_failure(self.profile(link=nobody))
        assert isinstance(error, NetworkFailed)
        assert "02:12:34:56:78:9A" in error.message
        assert await host.bystander.profiles() == {"start"}
        assert (await host.apply_one(self.profile(link=nobody, state="kept"))).actions == (
            "created",
        )

    async def test_name_servers_that_dhcp_tells_are_left_out_where_that_is_wished(
        self, host: NetworkUnderTest
    ) -> None:
        desired = self.change_ipv4(self.profile(), dns=(self.BUS,), ignore_auto_dns=True)
        await host.apply_one(desired)
        assert await host.bystander.read("office", "ipv4.ignore-auto-dns") == ("yes",)
        assert (await host.look(desired)).actions == ()
        await host.apply_one(self.profile())
        assert await host.bystander.read("office", "ipv4.ignore-auto-dns") == ("no",)

    async def test_whether_a_radio_sleeps_is_kept_and_its_mac_address(
        self, host: NetworkUnderTest
    ) -> None:
        link = Wifi(ssid="open", mac="02:12:34:56:78:9a", powersave=False)
        desired = self.profile(name="wireless", link=link, ipv4=None)
        await host.apply_one(desired)
        assert (await host.look(desired)).actions == ()
        told = await host.bystander.read("wireless", "802-11-wireless.powersave")
        assert told == ("disable",)
        told = await host.bystander.read("wireless", "802-11-wireless.mac-address")
        assert told == ("02:12:34:56:78:9A",)
        without = self.profile(name="wireless", link=Wifi(ssid="open"), ipv4=None)
        change = await host.apply_one(without)
        assert change.actions == ("changed 802-11-wireless.mac-address, 802-11-wireless.powersave",)
        assert (await host.look(without)).actions == ()

    async def test_an_interface_that_is_not_there_is_a_failure_and_nothing_is_touched(
        self, host: NetworkUnderTest
    ) -> None:
        error = await host.expect_failure(self.profile(link=Ethernet(interface="eth77")))
        assert isinstance(error, NetworkFailed)
        assert "eth77" in error.message
        assert await host.bystander.profiles() == {"start"}

    async def test_a_stranger_s_profile_is_refused_and_stays(self, host: NetworkUnderTest) -> None:
        identity = await host.bystander.identity("start")
        error = await host.expect_failure(self.profile(name="start"))
        assert isinstance(error, NotOurs)
        assert "take_over" in error.message
        (refused,) = await host.network.remove(["start"], apply=True)
        assert isinstance(refused, NotOurs)
        assert await host.bystander.identity("start") == identity

    async def test_a_stranger_s_profile_is_taken_over_when_that_is_wished_and_put_back(
        self, host: NetworkUnderTest
    ) -> None:
        await host.bystander.modify("start", "ipv4.dhcp-hostname", "kiosk")
        desired = self.profile(name="start", take_over=True)
        change = await host.apply_one(desired)
        assert change.actions == ("changed ipv4.addresses", "applied", self.CONFIRMED)
        assert await host.bystander.read("start", "ipv4.dhcp-hostname") == ("kiosk",)
        assert (await host.look(desired)).actions == ()
        change = await host.remove_one("start")
        assert change.actions == ("put back as it was", self.CONFIRMED)
        assert await host.bystander.read("start", "ipv4.addresses") == (self.FIRST,)
        assert await host.bystander.read("start", "ipv4.dhcp-hostname") == ("kiosk",)
        assert await host.bystander.in_use(self.WIRE) == "start"
        assert await host.bystander.is_on_disk("start")
        assert (await host.remove_one("start")).actions == ()

    async def test_what_a_bystander_has_changed_since_is_not_put_back(
        self, host: NetworkUnderTest
    ) -> None:
        await host.apply_one(self.profile(name="start", take_over=True))
        await host.bystander.modify("start", "ipv4.addresses", self.ALSO_GOOD)
        change = await host.remove_one("start")
        assert change.actions == ("left: it was there before, and somebody has changed it since",)
        assert await host.bystander.read("start", "ipv4.addresses") == (self.ALSO_GOOD,)

    async def test_one_of_another_type_is_not_turned_into_ours(
        self, host: NetworkUnderTest
    ) -> None:
        desired = self.profile(name="start", link=Bridge(interface="br7"), take_over=True)
        assert isinstance(await host.expect_failure(desired), InvalidResource)

    async def test_one_profile_follows_another_and_then_the_older_one_may_go(
        self, host: NetworkUnderTest
    ) -> None:
        await host.apply_one(self.profile())
        await host.bystander.delete("start")
        await host.apply_one(self.profile(self.ALSO_GOOD, name="branch"))
        assert (await host.remove_one("office")).actions == ("removed",)
        assert await host.bystander.profiles() == {"branch"}
        await host.apply_one(self.profile())
        assert (await host.remove_one("branch")).actions == ("removed",)

    async def test_what_was_taken_back_pushed_nobody_out(self, host: NetworkUnderTest) -> None:
        await host.apply_one(self.profile())
        for _ in range(2):
            error = await host.expect_failure(self.profile(self.BAD, name="branch"))
            assert isinstance(error, NetworkRolledBack)
        await host.wait_used(self.WIRE, "office")
        await host.apply_one(self.profile(self.ALSO_GOOD, name="branch"))
        assert await host.bystander.in_use(self.WIRE) == "branch"

    async def test_two_profiles_for_one_interface_do_not_push_each_other_out_for_ever(
        self, host: NetworkUnderTest
    ) -> None:
        office, branch = self.profile(), self.profile(self.ALSO_GOOD, name="branch")
        for desired in (office, branch, office):
            await host.apply_one(desired)
        error = await host.expect_failure(branch)
        assert isinstance(error, OwnershipConflict)
        assert "office" in error.message
        assert await host.bystander.in_use(self.WIRE) == "office"

    async def test_removal_takes_the_profile_away_and_what_was_there_comes_back(
        self, host: NetworkUnderTest
    ) -> None:
        await host.apply_one(self.profile())
        (planned,) = await host.network.remove(["office"], apply=False)
        assert isinstance(planned, Change)
        assert planned.actions == ("took down", "removed")
        assert await host.bystander.in_use(self.WIRE) == "office"
        change = await host.remove_one("office")
        assert change.actions == ("took down", "removed", self.CONFIRMED)
        assert change.after is None
        await host.wait_used(self.WIRE, "start")
        assert await host.bystander.profiles() == {"start"}
        assert (await host.remove_one("office")).actions == ()

    async def test_removal_of_what_is_not_in_use_needs_nobody(self, host: NetworkUnderTest) -> None:
        await host.apply_one(self.profile(state="kept"))
        await host.bystander.silence(True)
        assert (await host.remove_one("office")).actions == ("removed",)
        assert await host.bystander.profiles() == {"start"}

    async def test_a_removal_that_cuts_the_device_off_is_taken_back_and_not_tried_again(
        self, host: NetworkUnderTest
    ) -> None:
        await host.apply_one(self.profile())
        await host.bystander.delete("start")
        with pytest.raises(NetworkRolledBack) as raised:
            await host.remove_one("office")
        assert "nmcli connection delete" in raised.value.message
        await host.wait_used(self.WIRE, "office")
        assert await host.bystander.is_on_disk("office")
        identity = await host.bystander.identity("office")
        (refused,) = await host.network.remove(["office"], apply=True)
        assert isinstance(refused, NetworkRolledBack)
        assert await host.bystander.identity("office") == identity

    async def test_what_is_removed_in_its_trial_is_taken_back(self, host: NetworkUnderTest) -> None:
        await host.look(self.profile(self.BAD))
        await host.remove_one("office")
        await host.wait_used(self.WIRE, "start")
        assert await host.bystander.profiles() == {"start"}

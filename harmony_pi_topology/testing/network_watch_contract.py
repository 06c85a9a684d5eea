"""What every network must tell of what changes: a part of `NetworkConfiguratorContract`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import pytest

from harmony_core.resources import Ethernet, Ipv4, NetworkProfile

from .hearing import Hearer
from .network_under_test import NetworkUnderTest

__all__ = ["NetworkContract", "NetworkWatchContract"]


class NetworkContract(ABC):
    """What its parts have in common."""

    WIRE: ClassVar[str] = "eth1"
    BUS: ClassVar[str] = "10.79.0.1"
    FIRST: ClassVar[str] = "10.79.0.9/24"
    GOOD: ClassVar[str] = "10.79.0.2/24"
    ALSO_GOOD: ClassVar[str] = "10.79.0.3/24"
    BAD: ClassVar[str] = "10.80.0.2/24"
    CONFIRMED: ClassVar[str] = "confirmed: the control plane was reached anew"

    @pytest.fixture
    @abstractmethod
    def host(self) -> NetworkUnderTest:
        """Return a device with one cable, in `WIRE`, whose control plane is `BUS`, reached by that alone.

        A stranger's profile `start` is in use there, with the address `FIRST`.
        """

    def profile(self, *addresses: str, **fields: Any) -> NetworkProfile:
        """Return a profile for `WIRE` that must soon be confirmed."""
        given = {
            "name": "office",
            "link": Ethernet(interface=self.WIRE),
            "ipv4": Ipv4(method="manual", addresses=addresses or (self.GOOD,)),
            "confirm_within_s": 5,
        }
        return NetworkProfile.model_validate({**given, **fields})

    def change_ipv4(self, profile: NetworkProfile, **ipv4: Any) -> NetworkProfile:
        """Return the same profile with other fields of IPv4."""
        fields = {"method": "manual", "addresses": (self.GOOD,), **ipv4}
        return profile.model_copy(update={"ipv4": Ipv4.model_validate(fields)})


class NetworkWatchContract(NetworkContract):
    """Needs the fixture `host`."""

    @pytest.fixture
    def hearer(self) -> Hearer:
        return Hearer()

    @pytest.mark.parametrize("deed", ["take_down", "delete", "bring_up"])
    async def test_what_a_bystander_does_to_a_profile_is_told(
        self, host: NetworkUnderTest, hearer: Hearer, deed: str
    ) -> None:
        await host.apply_one(self.profile())
        await host.network.watch(["office"], hearer)
        await getattr(host.bystander, deed)("office")
        await hearer.hears("office")

    async def test_every_change_of_a_profile_is_told(
        self, host: NetworkUnderTest, hearer: Hearer
    ) -> None:
        await host.apply_one(self.profile())
        await host.network.watch(["office"], hearer)
        for name in ("kiosk", "terminal"):
            await host.bystander.modify("office", "ipv4.dhcp-hostname", name)
            await hearer.hears("office")
            await hearer.is_at_rest()

    async def test_an_address_that_is_taken_off_past_the_daemon_is_told(
        self, host: NetworkUnderTest, hearer: Hearer
    ) -> None:
        await host.apply_one(self.profile())
        await host.network.watch(["office"], hearer)
        for _ in range(2):
            await host.bystander.drop_address(self.WIRE, self.GOOD)
            await hearer.hears("office")
            await host.apply_one(self.profile())
            await hearer.is_at_rest()

    async def test_what_comes_into_being_is_told(
        self, host: NetworkUnderTest, hearer: Hearer
    ) -> None:
        await host.network.watch(["office"], hearer)
        await host.bystander.make_strange("office", self.WIRE, self.GOOD)
        await hearer.hears("office")
        await hearer.is_at_rest()
        await host.bystander.drop_address(self.WIRE, self.GOOD)
        await hearer.hears("office")

    async def test_a_profile_that_is_watched_no_more_is_not_told(
        self, host: NetworkUnderTest, hearer: Hearer
    ) -> None:
        await host.apply_one(self.profile())
        other = Hearer()
        await host.network.watch(["office"], other)
        await host.network.watch(["start"], hearer)
        await host.bystander.take_down("office")
        await hearer.hears("start", never="office")
        assert other.heard == []

    async def test_after_a_daemon_that_starts_again_changes_are_told(
        self, host: NetworkUnderTest, hearer: Hearer
    ) -> None:
        await host.apply_one(self.profile())
        await host.network.watch(["office"], hearer)
        await host.bystander.begin_anew()
        await host.wait_used(self.WIRE, "office")
        await host.has(self.WIRE, self.GOOD)
        while not (await host.network.availability()).available:
            await host.bystander.pass_time(0.1)
        await hearer.is_at_rest()
        hearer.heard.clear()
        await host.bystander.drop_address(self.WIRE, self.GOOD)
        await hearer.hears("office")

"""A network in memory passes the contract of networks."""

from __future__ import annotations

import pytest

from harmony_core.testing.fake_network import FakeNetwork
from harmony_core.testing.network_contract import NetworkConfiguratorContract
from harmony_core.testing.network_under_test import NetworkUnderTest


class TestFakeNetwork(NetworkConfiguratorContract):
    @pytest.fixture
    async def host(self) -> NetworkUnderTest:
        network = FakeNetwork(interfaces=[self.WIRE], bus=self.BUS, patient=False)
        await network.make_strange("start", self.WIRE, self.FIRST)
        return NetworkUnderTest(network=network, bystander=network, reopened=network.reopened)

"""Network profiles on a real NetworkManager, in a box: the contract, and what only a real one can show."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from harmony_core.testing.network_contract import NetworkConfiguratorContract
from harmony_core.testing.network_under_test import NetworkUnderTest
from tests.box import Bed, Box
from tests.topology.box_network import NetworksOfABox, cabled, emptied

WIRE = NetworkConfiguratorContract.WIRE
FIRST = NetworkConfiguratorContract.FIRST


@pytest.fixture(scope="module")
def wired(pi: Box, bed: Bed) -> Box:
    """A Pi with a second cable."""
    cabled(pi, bed.name)
    return pi


@pytest.fixture
async def networks(wired: Box, tmp_path: Path) -> AsyncGenerator[NetworksOfABox]:
    emptied(wired)
    networks = NetworksOfABox(wired, tmp_path)
    await networks.bystander.silence(False)
    await networks.bystander.make_strange("start", WIRE, FIRST)
    yield networks
    await networks.close()


class TestNetworkManagerInABox(NetworkConfiguratorContract):
    @pytest.fixture
    def host(self, networks: NetworksOfABox) -> NetworkUnderTest:
        return networks.under_test()

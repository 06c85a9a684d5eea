"""A control plane and an enrolled Pi for each module; a connection and a bare device for each test."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator

import pytest

from harmony_control.device import Device
from harmony_control.fleet import Fleet
from harmony_pi_topology import PiTopology
from tests.box import Bed, Box
from tests.fleet.ground import AGENT, ControlPlane, Host, heard, until


@pytest.fixture(scope="module")
def plane(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Generator[ControlPlane]:
    """A control plane in the boxes' network."""
    plane = ControlPlane(tmp_path_factory.mktemp("plane"))
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture(scope="module")
def pi(boot: Callable[[], Box], plane: ControlPlane) -> Box:
    """A Pi with its agent, started by systemd."""
    box = boot()
    plane.enrol(box)
    return box


@pytest.fixture
def host(pi: Box) -> Host:
    return Host(pi)


@pytest.fixture
async def fleet(plane: ControlPlane) -> AsyncGenerator[Fleet]:
    async with Fleet.connect(plane.home) as fleet:
        yield fleet


@pytest.fixture
async def device(fleet: Fleet, pi: Box) -> AsyncGenerator[Device[PiTopology]]:
    """The Pi of the module, heard of. Whatever a test leaves on it is removed at its end."""
    device = fleet.device(pi.name)
    assert not (await until(device, lambda _: True)).scores
    await heard(device)
    yield device
    # Shown with whatever has failed, and only then.
    print(pi.journal(AGENT)[-8000:])
    left = await device.state()
    if left is not None and left.scores:
        await device.remove(*left.scores)

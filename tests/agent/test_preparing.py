"""What takes long or may fail is done before anything that runs is touched."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import pytest

from harmony_core import (
    Container,
    File,
    HasContainers,
    HasFiles,
    Inventory,
    Outcome,
    Score,
    outcome_of,
)
from harmony_core.outcome import Running
from harmony_core.resources import PublishedPort
from harmony_core.testing import FakePi
from harmony_core.wire.actual_state import ActualState

from .rig import code, entry, status
from .virtual import VirtualDevice, running_device

pytestmark = pytest.mark.looptime

FIRST, SECOND = (f"registry.test/web@sha256:{digit * 64}" for digit in "12")


class HasBoth(HasFiles, HasContainers, Protocol):
    """Files and containers."""


class Site(Score[HasBoth]):
    """A page, and what serves it; the page is written first."""

    text: str
    image: str
    port: int | None = None

    async def interpret(self, inventory: Inventory, topology: HasBoth) -> Outcome:
        page = await topology.files.ensure(File(path="/etc/page", content=self.text.encode()))
        ports = () if self.port is None else (PublishedPort(host=self.port, container=80),)
        server = Container(name="web", image=self.image, command=("serve",), ports=ports)
        return outcome_of(page, await topology.containers.ensure(server))


def running(root: Path, pi: FakePi) -> AbstractAsyncContextManager[VirtualDevice]:
    return running_device(root, pi.offers, Site)


async def settled(
    device: VirtualDevice, text: str, image: str, *, seconds: float = 30
) -> ActualState:
    device.push([entry(Site(text=text, image=image), "site")])
    await asyncio.sleep(seconds)
    assert device.bus.told is not None
    return device.bus.told


async def test_an_image_that_is_not_there_costs_nothing_of_what_runs(tmp_path: Path) -> None:
    pi = FakePi()
    pi.containers.missing_images = {SECOND}
    async with running(tmp_path, pi) as it:
        assert status((await settled(it, "one", FIRST)).scores) == {"site": "SUCCESS"}
        state = await settled(it, "two", SECOND)
        assert code(state.scores["site"]) == "ImageNotFound"
        assert pi.files.read("/etc/page") == b"one"
        assert status((await settled(it, "two", FIRST)).scores) == {"site": "SUCCESS"}
        assert pi.files.read("/etc/page") == b"two"


async def test_nothing_is_touched_while_an_image_is_fetched(tmp_path: Path) -> None:
    pi = FakePi()
    async with running(tmp_path, pi) as it:
        await settled(it, "one", FIRST)
        pi.containers.looks_at_a_pull = 20
        state = await settled(it, "two", SECOND, seconds=5)
        outcome = state.scores["site"].outcome
        assert isinstance(outcome, Running)
        assert outcome.progress is not None
        assert pi.files.read("/etc/page") == b"one"
        await asyncio.sleep(30)
        assert it.bus.told is not None
        assert status(it.bus.told.scores) == {"site": "SUCCESS"}
        assert pi.files.read("/etc/page") == b"two"


async def test_a_port_that_somebody_holds_costs_nothing_of_what_runs(tmp_path: Path) -> None:
    pi = FakePi()
    async with running(tmp_path, pi) as it:
        await settled(it, "one", FIRST)
        await pi.containers.hold_port(8080)
        it.push([entry(Site(text="two", image=FIRST, port=8080), "site")])
        await asyncio.sleep(30)
        assert it.bus.told is not None
        assert code(it.bus.told.scores["site"]) == "PortTaken"
        assert pi.files.read("/etc/page") == b"one"
        await pi.containers.free_port(8080)
        await asyncio.sleep(300)
        assert status(it.bus.told.scores) == {"site": "SUCCESS"}
        assert pi.files.read("/etc/page") == b"two"

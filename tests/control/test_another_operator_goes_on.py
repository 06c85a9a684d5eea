"""Nothing holds what the server cannot tell again: a rollout whose home is lost is gone on with from another.

Ada runs the server. Carl rolls out, by `harmony apply`, and is lost with his home. Bob was let in as
`harmony add-operator` does it, and has never seen any of it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path

import attrs
import pytest

from harmony_control.fleet import Fleet
from harmony_control.operators import add_operator, join
from harmony_control.rollout.state import Look
from harmony_control.server.roster import publish_devices
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_core.plugins import Registry
from harmony_core.testing import FakeFiles
from harmony_scores import FileScore
from tests.device import running_agent
from tests.nats import Bus, serving

from .ground import harmony, running_command
from .rollout_scene import MOTD, Scene

_WAVES = "    rollout:\n      steps: ['1', {upto: '2', soak: 20s}, '3', '4']\n"
_NAMES = [f"pi-{each + 1}" for each in range(5)]


@attrs.frozen
class _Three:
    scene: Scene
    """As Carl sees it."""
    carl: Home
    bob: Home


async def _let_in(bus: Bus, root: Path, name: str) -> Home:
    """Make a home for *name*, and let it into the bus."""
    home, path = Home(root / name), root / f"{name}.fleet"
    operator_key.create(home)
    fleet = await asyncio.to_thread(add_operator, bus.home, name, home.operator_pub)
    fleet.write(path)
    await join(home, path)
    return home


@pytest.fixture
async def three(tmp_path: Path) -> AsyncGenerator[_Three]:
    async with serving(tmp_path / "ada") as bus, AsyncExitStack() as stack:
        carl = await _let_in(bus, tmp_path, "carl")
        bob = await _let_in(bus, tmp_path, "bob")
        await bus.enrol(*_NAMES)
        await publish_devices(bus.home, bus.admin)
        files = {name: FakeFiles() for name in _NAMES}
        agents = {
            name: await stack.enter_async_context(
                running_agent(
                    bus.home,
                    name,
                    tmp_path / name,
                    registry=Registry([FileScore]),
                    offers={"FileSystemHost": files[name]},
                    missing={"SystemdHost": "no systemd here"},
                )
            )
            for name in _NAMES
        }
        async with Fleet.connect(carl) as fleet:
            scene = Scene(bus, fleet, files, tmp_path / "folder", stack, files, agents)

            async def are_heard() -> bool:
                rows = await fleet.agents()
                return len(rows) == 5 and all(each.presence == "Heard" for each in rows)

            await scene.until(are_heard)
            scene.describe(MOTD % "one")
            await scene.go(await scene.apply())
            yield _Three(scene, carl, bob)


async def _lose_carl(three: _Three) -> Look:
    """Have Carl roll out until the second wave soaks, and lose him. Return how it stands then."""
    scene = three.scene
    scene.describe(MOTD % "two", rollout=_WAVES)
    found: Look | None = None
    apply = ("apply", str(scene.folder), "--no-resolve", "--yes")
    async with running_command(three.carl, *apply, is_heard=False):

        async def soaks() -> bool:
            nonlocal found
            # Whoever looks has seen nothing before.
            found = await scene.fleet.rollout("kiosk").read()
            gate = found.progress.gate
            return (gate.generation, gate.step) == (2, 1) and found.soaks_until is not None

        await scene.until(soaks)
    await asyncio.to_thread(shutil.rmtree, three.carl.root)
    assert found is not None
    return found


@pytest.mark.timeout(180)
async def test_another_operator_goes_on_where_it_stands_and_each_wave_is_opened_once(
    three: _Three,
) -> None:
    before = await _lose_carl(three)
    async with Fleet.connect(three.bob) as fleet:
        rollout = fleet.rollout("kiosk")
        after = await rollout.read()
        assert after.progress.gate == before.progress.gate
        assert after.soaks_until == before.soaks_until, "what has soaked, has soaked"
        assert (await harmony(three.bob, "rollout", "status", "kiosk")).status == 4
        done = await harmony(three.bob, "rollout", "run", "kiosk")
        assert done.status == 0, done
        gates = [each for each in await rollout.history() if each.generation == 2]
    opened = [(each.state, each.step) for each in gates]
    assert opened == [*(("running", at) for at in range(5)), ("done", 4)]
    third = gates[2]
    assert before.soaks_until is not None
    assert third.issued_at >= before.soaks_until
    assert set((await three.scene.content()).values()) == {b"two"}


@pytest.mark.timeout(180)
async def test_another_operator_takes_it_back(three: _Three) -> None:
    await _lose_carl(three)
    said = await harmony(three.bob, "rollout", "abort", "kiosk", "--reason", "nobody knows of it")
    assert said.status == 0, said

    async def are_back() -> bool:
        status = await harmony(three.bob, "--json", "rollout", "status", "kiosk")
        (told,) = status.documents
        return (told["counts"]["RolledBack"], told["counts"]["NotReached"]) == (2, 3)

    await three.scene.until(are_back)
    assert set((await three.scene.content()).values()) == {b"one"}

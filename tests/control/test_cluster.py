"""A cluster of three: whichever server is killed, what was acknowledged is kept, and nothing is done twice.

The oracle: what a push has acknowledged stands in the bucket, whoever is asked; each device has made of it
what it says, once; and each step of a rollout was written once.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
from base64 import b64decode
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import pytest

from harmony_agent.bus.link import honour_cancellation
from harmony_control.bus.connection import Entry
from harmony_control.fleet import Fleet
from harmony_core.errors import StoreError
from harmony_core.plugins import Registry
from harmony_core.wire.gate import Gate
from harmony_core.wire.manifest import parse_manifest
from harmony_core.wire.names import DESIRED_STATE, ROLLOUT
from harmony_scores import FileScore
from tests.cluster import Cluster, ServerNode, serving_cluster
from tests.control.ground import running_command
from tests.counting_files import CountingFiles
from tests.device import running_agent
from tests.soak import runs, seed

CLASS = "kiosk"
OWN, SHARED = "/etc/own", "/etc/shared"
WAVES = (("1", 0), ("2", 0), ("100%", 0))
WITHIN_S = 60


@attrs.frozen
class Scene:
    """A cluster with a fleet of real agents over made-up files."""

    cluster: Cluster
    fleet: Fleet
    files: Mapping[str, CountingFiles]
    acknowledged: Mapping[str, list[tuple[int, str]]]
    """Of each device, what a push said is kept: the generation, and its content."""

    async def push_on(self, name: str) -> None:
        """Push one content after the other, until cancelled."""
        for each in range(1, 1_000_000):
            honour_cancellation()
            entry = {"own": FileScore(path=OWN, content=f"{each}")}
            try:
                pushed = await self.fleet.device(name).put(entry, resolve=False)
            except StoreError:
                pass  # it may be kept, or not: nobody was told that it is
            else:
                self.acknowledged[name].append((pushed.generation, f"{each}"))
            await asyncio.sleep(0.2)

    async def roll_out(self, content: str, waves: Sequence[tuple[str, int]] = WAVES) -> None:
        """Have every device have *content*, wave by wave."""
        entry = {"shared": FileScore(path=SHARED, content=content)}
        while True:
            try:
                await self.fleet.push_class(CLASS, entry, selector="", upto=waves, resolve=False)
            except StoreError:
                await asyncio.sleep(0.2)
            else:
                break
        async for _ in self.fleet.rollout(CLASS).run():
            pass

    async def gates(self) -> list[Gate]:
        return await self.fleet.rollout(CLASS).history()

    async def assert_kept(self) -> None:
        """All that was acknowledged stands in the bucket, in its order, and nothing of it twice."""
        for name, told in self.acknowledged.items():
            acknowledged = list(told)
            found = await self.cluster.bus.bucket(DESIRED_STATE).history(name)
            stands = [_own_of(each) for each in found]
            generations = [generation for generation, _ in stands]
            assert generations == sorted(set(generations))
            # The bucket keeps eight; what was not acknowledged may stand between.
            expected = [each for each in acknowledged if each[0] >= generations[0]]
            assert [each for each in stands if each in expected] == expected, (name, stands)
            assert acknowledged[-1] in stands

    async def assert_made_once(self) -> None:
        """Each device makes what stands there newest, and has made nothing twice."""
        for name, files in self.files.items():
            newest = await self.cluster.bus.bucket(DESIRED_STATE).get(name)
            assert newest is not None
            _, content = _own_of(newest)
            async with asyncio.timeout(WITHIN_S):
                while files.read(OWN) != content.encode():
                    await asyncio.sleep(0.05)
            assert set(files.written.values()) == {1}, files.written


def _own_of(entry: Entry) -> tuple[int, str]:
    manifest = parse_manifest(b64decode(json.loads(entry.value)["payload"]))
    (own,) = (each for each in manifest.scores if each.id == "own")
    return manifest.generation, str(own.spec["content"])


@asynccontextmanager
async def serving_scene(root: Path, count: int) -> AsyncGenerator[Scene]:
    names = [f"pi-{each + 1}" for each in range(count)]
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(serving_cluster(root, *names))
        fleet = await stack.enter_async_context(Fleet.connect(cluster.bus.home))
        files = {name: CountingFiles() for name in names}
        for name in names:
            await stack.enter_async_context(
                running_agent(
                    cluster.bus.home,
                    name,
                    root / name,
                    registry=Registry([FileScore]),
                    offers={"FileSystemHost": files[name]},
                    missing={"SystemdHost": "no systemd here"},
                )
            )
        async with asyncio.timeout(WITHIN_S):
            while not all(each.presence == "Heard" for each in await fleet.agents()):
                await asyncio.sleep(0.05)
        yield Scene(cluster, fleet, files, {name: [] for name in names})


async def _choose(cluster: Cluster, which: str) -> ServerNode:
    match which:
        case "leader of the bucket":
            return await cluster.leader(f"KV_{DESIRED_STATE}")
        case "leader of all":
            return await cluster.meta_leader()
        case _:
            return cluster.nodes[int(which)]


ORDER = ("leader of the bucket", "leader of all", "0", "1", "2")


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_whichever_server_is_killed_what_was_acknowledged_is_kept_and_done_once(
    tmp_path: Path,
) -> None:
    kills, dice = runs(20, part=7), random.Random(seed())
    async with serving_scene(tmp_path, 4) as scene, asyncio.TaskGroup() as group:
        pushing = [group.create_task(scene.push_on(name)) for name in scene.files]
        for each in range(kills):
            rolling = group.create_task(scene.roll_out(f"shared {each}"))
            await asyncio.sleep(dice.random())
            node = await _choose(scene.cluster, ORDER[each % len(ORDER)])
            before = {name: len(told) for name, told in scene.acknowledged.items()}
            await node.kill()
            async with asyncio.timeout(WITHIN_S):
                # With two of three, all goes on.
                await rolling
                while any(len(scene.acknowledged[name]) == count for name, count in before.items()):
                    await asyncio.sleep(0.05)
            await node.start()
            await scene.cluster.whole()
            await scene.assert_kept()
        for task in pushing:
            task.cancel()
        await asyncio.wait(pushing)
        await scene.assert_kept()
        await scene.assert_made_once()
        for files in scene.files.values():
            assert files.read(SHARED) == f"shared {kills - 1}".encode()
        written = [(gate.generation, gate.state, gate.step) for gate in await scene.gates()]
        assert len(set(written)) == len(written), written


def controller(cluster: Cluster) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """``harmony rollout run``, as a process of its own that may be frozen."""
    command = ("rollout", "run", CLASS, "--json")
    return running_command(cluster.bus.home, *command, is_heard=False)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_of_two_controllers_one_is_frozen_and_revived_and_each_step_is_done_once(
    tmp_path: Path,
) -> None:
    rollouts, dice = runs(10), random.Random(seed())
    waves = [(f"{each}", 1) for each in range(1, 5)]
    async with serving_scene(tmp_path, 4) as scene:
        for each in range(rollouts):
            entry = {"shared": FileScore(path=SHARED, content=f"shared {each}")}
            await scene.fleet.push_class(CLASS, entry, selector="", upto=waves, resolve=False)
            async with (
                controller(scene.cluster) as frozen,
                controller(scene.cluster) as awake,
                asyncio.timeout(2 * WITHIN_S),
            ):
                frozen_at = await _step_reached(scene, 2)
                await asyncio.sleep(2 * dice.random())
                frozen.send_signal(signal.SIGSTOP)
                node = await scene.cluster.leader(f"KV_{ROLLOUT}")
                await node.kill()
                await _step_reached(scene, frozen_at + 1)
                frozen.send_signal(signal.SIGCONT)
                await node.start()
                assert (await awake.wait(), await frozen.wait()) == (0, 0)
            await scene.cluster.whole()
        for files in scene.files.values():
            assert files.written == {
                (SHARED, f"shared {each}".encode()): 1 for each in range(rollouts)
            }
        last = [gate for gate in await scene.gates() if gate.generation == rollouts]
        assert [(gate.term, gate.state, gate.step) for gate in last] == [
            *((1, "running", step) for step in range(5)),
            (1, "done", 4),
        ]


async def _step_reached(scene: Scene, step: int) -> int:
    """Return at which step the newest rollout is, at *step* or beyond."""
    while True:
        try:
            gate = (await scene.gates())[-1]
        except StoreError:
            await asyncio.sleep(0.2)
            continue
        if gate.step >= step or gate.state == "done":
            return gate.step
        await asyncio.sleep(0.05)

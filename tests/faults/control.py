"""The control plane of the fleet under faults: `harmony server`, who pushes, and the model of it all.

The model knows only what was signed, and which of it the server has acknowledged. Where an answer was lost,
both what stood before and what was sent may be in force, until a later push is acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import attrs

from harmony_control.device import Device as KnownDevice
from harmony_control.fleet import Fleet
from harmony_control.push.entries import Entry, serialize
from harmony_control.server.apply import server_pid
from harmony_control.store.home import Home
from harmony_core.errors import HarmonyError, UnknownKind, UntrustedSignature, UsageError
from harmony_core.wire.manifest import SerializedScore
from harmony_pi_topology import PiTopology
from tests.faults.things import THINGS, Wish

__all__ = ["Model", "Pusher", "ServerProcess"]

_TREE = Path(__file__).parents[2]
_STARTED_WITHIN_S = 60.0


class ServerProcess:
    """`harmony server`, as a person or systemd starts it."""

    def __init__(self, home: Home, listen: str) -> None:
        self._home = home
        self._listen = listen
        self._process: asyncio.subprocess.Process | None = None
        self.is_up = asyncio.Event()

    async def start(self) -> None:
        """Return when it says that it runs."""
        command = ("-m", "harmony_control.cli", "server", "--home", str(self._home.root))
        self._process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "TERM", sys.executable, *command),
            *("--listen", self._listen),
            cwd=_TREE,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(_STARTED_WITHIN_S):
            said = (await self._process.stdout.readline()).decode()
        assert "running at" in said, f"harmony server did not start: {said!r}"
        self.is_up.set()

    async def kill(self, *, whole: bool) -> None:
        """kill -9: nats-server, after which `harmony server` ends by itself; or, with *whole*, that."""
        assert self._process is not None
        self.is_up.clear()
        pid = self._process.pid if whole else server_pid(self._home)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await self._process.communicate()

    async def stop(self) -> None:
        """As systemd would stop it. Idempotent."""
        self.is_up.clear()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.communicate()


@attrs.define
class Model:
    """What one device was told to be."""

    wishes: dict[int, Wish] = attrs.field(factory=dict[int, Wish])
    """By generation: all that were acknowledged."""
    acknowledged: int = 0
    """The newest of them."""
    doubtful: list[Wish] = attrs.field(factory=list[Wish])
    """What was sent since, and not answered."""
    envelopes: dict[int, bytes] = attrs.field(factory=dict[int, bytes])
    """Some of what was signed, by generation."""
    pushes: int = 0
    """How often anything was tried."""

    @property
    def wish(self) -> Wish:
        return self.wishes.get(self.acknowledged, {})

    def acknowledge(self, generation: int, wish: Wish) -> None:
        assert generation > self.acknowledged, "a push was acknowledged that is not newer"
        self.wishes[generation] = wish
        self.acknowledged = generation
        self.doubtful.clear()


class Pusher:
    """Whoever pushes to one device, and notes in its *model* what comes of it."""

    def __init__(self, fleet: Fleet, device: str, dice: random.Random) -> None:
        self.model = Model()
        self.device: KnownDevice[PiTopology] = fleet.device(device)
        self._dice = dice
        self._colours = 0
        self._lock = asyncio.Lock()

    def next_wish(self) -> Wish:
        """Return another wish: about a third of all things is new, another, or not wanted any more."""
        wish = dict(self.model.wish)
        for name in self._dice.sample(sorted(THINGS), self._dice.randint(3, 6)):
            self._colours += 1
            if name in wish and self._dice.random() < 0.25:
                del wish[name]
            else:
                wish[name] = f"c{self._colours}"
        return wish

    async def push(self, wish: Wish, *, force: bool = False) -> bool:
        """Push *wish*, and only that. Return whether it was acknowledged."""
        async with self._lock:
            self.model.pushes += 1
            try:
                before = await self._wanted()
            except HarmonyError:
                return False  # nothing was signed
            try:
                pushed = await self.device.put(
                    self._entries(wish),
                    remove=before - wish.keys(),
                    resolve=False,
                    force=force,
                )
            except UnknownKind:
                raise  # no fault brings that about
            except HarmonyError:
                self.model.doubtful.append(wish)
                return False
            self.model.acknowledge(pushed.generation, wish)
            return True

    async def roll_back(self) -> bool:
        """`harmony rollback`, to a generation of some time ago. Return whether it was acknowledged."""
        model = self.model
        if len(model.wishes) < 3 or model.doubtful:
            return False
        to = self._dice.choice(sorted(model.wishes)[-4:-1])
        async with self._lock:
            model.pushes += 1
            try:
                pushed = await self.device.rollback(to)
            except UsageError:
                return False  # out of reach, or no other than what is wanted
            except HarmonyError:
                model.doubtful.append(model.wishes[to])
                return False
            model.acknowledge(pushed.generation, model.wishes[to])
            return True

    async def push_again(self) -> bool:
        """`harmony push-score --all --force`, after the server has lost what it had, or somebody else has
        written there. Return whether it was acknowledged, or there was nothing to push."""
        async with self._lock:
            self.model.pushes += 1
            if not self.model.wish and not self.model.doubtful:
                return True
            try:
                pushed = await self.device.put_again(force=True)
            except UsageError:
                return True  # the newest that is known has no Score
            except HarmonyError:
                return False
            (wish,) = self._find_wished(pushed.entries)
            self.model.acknowledge(pushed.generation, wish)
            return True

    async def find_which(self) -> None:
        """Where an answer was lost: find out on the server which of the wishes is in force, and that it is
        none that is older than what was acknowledged."""
        async with self._lock:
            if not self.model.doubtful:
                return
            self._find_wished(await self.device.read_desired())

    def _find_wished(self, entries: Mapping[str, SerializedScore]) -> list[Wish]:
        """Return which of what may be in force *entries* are; it must be one of them."""
        found = {name: entry.spec for name, entry in entries.items()}
        possible = [self.model.wish, *self.model.doubtful]
        in_force = [each for each in possible if _specs(each) == found]
        assert in_force, (
            f"{self.device.id}: {found} is in force, which is none of what was pushed last, and older than "
            f"what was acknowledged: {possible}"
        )
        return in_force[:1]

    def _entries(self, wish: Wish) -> Mapping[str, Entry[PiTopology]]:
        names = list(wish)
        self._dice.shuffle(names)
        return {
            name: Entry(
                THINGS[name].score(wish[name]),
                after=[names[at - 1]] if at and self._dice.random() < 0.2 else (),
            )
            for at, name in enumerate(names)
        }

    async def _wanted(self) -> frozenset[str]:
        with suppress(UntrustedSignature):
            return frozenset(await self.device.read_desired())
        return frozenset(self.model.wish)


def _specs(wish: Wish) -> Mapping[str, object]:
    """Return *wish* as it stands in a manifest, without who waits for whom."""
    return {
        name: serialize(name, Entry(THINGS[name].score(colour))).spec
        for name, colour in wish.items()
    }

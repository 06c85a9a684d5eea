"""The fleet under faults: a real server, real agents, who pushes to them, and who strikes.

    push -> wait until the device is being changed -> a fault -> was it still the same change? a hit
         -> mended -> the device is what was acknowledged, or the next push comes first

What must be true meanwhile, and at the end, is in `onlooker`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import attrs
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext

from harmony_agent.bus.link import honour_cancellation
from harmony_control.bus.connection import Bucket, admin
from harmony_control.enrol import add_agent
from harmony_control.fleet import Fleet
from harmony_core.errors import HarmonyError
from tests.faults.control import Pusher, ServerProcess
from tests.faults.device import Device, Launcher, find_faketime
from tests.faults.faulty import WITHIN_S, Faulty
from tests.faults.kinds import HOSTILE_WRITES, KINDS, NothingToSpoil
from tests.faults.onlooker import Onlooker
from tests.faults.patience import Patience
from tests.faults.stopwatch import Stopwatch
from tests.faults.things import is_right, wrong
from tests.nats import fleet_home
from tests.ports import free_address

__all__ = ["SERVER_KINDS", "Ground", "ground"]

SERVER_KINDS = ("server killed", "stream deleted")
"""What is done to the server that all share."""
_SERVER_WEIGHTS = (2, 1)

_AGENTS_A_CLOCK = 10
_LASTS_S = (0.0, 1.5)
_PUSHED_AGAIN_S = 0.1
_STREAMS = ("KV_desired-state", "KV_actual-state", "KV_heartbeat")


class _Subscriber(Protocol):
    """What is used of nats-py's client, whose own signature is half typed."""

    async def subscribe(
        self, subject: str, *, cb: Callable[[Msg], Awaitable[None]]
    ) -> Subscription: ...


async def _subscribe(
    client: _Subscriber, subject: str, note: Callable[[Msg], Awaitable[None]]
) -> None:
    await client.subscribe(subject, cb=note)


def _make_turns() -> asyncio.Semaphore:
    """More devices than that at one time would only wait for the processor."""
    return asyncio.Semaphore(3 * (os.cpu_count() or 1))


@attrs.define
class Ground:
    """Everything, while the server may come and go."""

    server: ServerProcess
    client: Client
    all: Sequence[Faulty]
    kinds: Sequence[str]
    hits: Counter[str] = attrs.field(factory=Counter[str])
    """By kind: faults that were seen to hit an apply."""
    misses: Counter[str] = attrs.field(factory=Counter[str])
    """By kind: faults that came too late."""
    pushes: Counter[str] = attrs.field(factory=Counter[str])
    server_strikes: int = 0
    """How often the server was struck."""
    watch: Stopwatch = attrs.field(factory=Stopwatch)
    _turns: asyncio.Semaphore = attrs.field(factory=_make_turns)
    """So many devices are changed and struck at one time; the others live, are mended, and are looked at."""
    onlooker: Onlooker = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.onlooker = Onlooker(self.all, self._turns, self.watch)

    def find_unseen(self) -> list[str]:
        """Return each kind of fault of which none was seen to hit, be it that none can be done here."""
        return [each for each in (*KINDS, *SERVER_KINDS) if not self.hits[each]]

    def bucket(self, name: str) -> Bucket:
        """As an administrator of NATS."""
        return Bucket(self.client, name)

    async def start_agents(self) -> None:
        """Return when each runs, and has told of itself."""
        by_id = {each.device.id: each for each in self.all}

        async def note(message: Msg) -> None:
            by_id[message.subject.rpartition(".")[2]].told += 1

        await _subscribe(self.client, "$KV.actual-state.*", note)
        async with asyncio.TaskGroup() as starts:
            for each in self.all:
                starts.create_task(self._start_agent(each))

    async def _start_agent(self, faulty: Faulty) -> None:
        async with self._turns:
            await faulty.device.start_agent()
            patience = Patience(WITHIN_S)
            while not faulty.told:
                await patience.pause(0.05)

    async def strike(self, faulty: Faulty, count: int) -> None:
        """Push to a device and have *count* faults hit it meanwhile, one after the other."""
        done = 0
        while done < count:
            honour_cancellation()
            kind = faulty.dice.choice(self.kinds)
            async with self._turns:
                with self.watch.timed("pushing"):
                    pushed = await self._push_something(faulty)
                hit = pushed and await self._hit(faulty, kind)
            if not pushed:
                await self.server.is_up.wait()
                await asyncio.sleep(_PUSHED_AGAIN_S)
                continue
            if hit:
                self.hits[kind] += 1
                done += 1
            else:
                self.misses[kind] += 1
            if kind in HOSTILE_WRITES or faulty.is_touched or faulty.dice.random() < 0.4:
                with self.watch.timed("mending"):
                    await self._mend(faulty, kind)

    async def _push_something(self, faulty: Faulty) -> bool:
        pusher = faulty.pusher
        rolls_back = faulty.dice.random() < 0.15
        if rolls_back and await pusher.roll_back():
            self.pushes["rollbacks"] += 1
        elif await pusher.push(pusher.next_wish()):
            self.pushes["acknowledged"] += 1
        else:
            self.pushes["not answered"] += 1
            return False
        faulty.note(f"pushed: {pusher.model.acknowledged}")
        with suppress(HarmonyError):
            if found := await self.bucket("desired-state").get(faulty.device.id):
                pusher.model.envelopes[pusher.model.acknowledged] = found.value
        return True

    async def _hit(self, faulty: Faulty, kind: str) -> bool:
        """Do it as soon as the device is being changed. Return whether that was still so then."""
        device = faulty.device
        with self.watch.timed("waiting for a change"):
            await self._wait_for_change(faulty, taken_in=kind in HOSTILE_WRITES)
        await asyncio.sleep(faulty.dice.choice([0.0, 0.005, 0.02, 0.1]))
        before = device.applying.now
        faulty.is_touched = faulty.is_touched or kind == "file changed by another root"
        hit = False
        try:
            faulty.note(kind)
            with self.watch.timed("under a fault"):
                async with KINDS[kind](self, faulty):
                    hit = device.applying.now.is_still(before)
                    await asyncio.sleep(faulty.dice.uniform(*_LASTS_S))
        except (HarmonyError, NothingToSpoil):
            pass  # a hostile writer found no server, for one
        faulty.note(f"mended: {kind}")
        return hit

    async def _wait_for_change(self, faulty: Faulty, *, taken_in: bool) -> None:
        """Return when the device is being changed, or is as it should be; with *taken_in* not before it has
        taken in what was acknowledged: what a hostile writer overtakes never comes."""
        device, model = faulty.device, faulty.pusher.model
        patience = Patience(WITHIN_S)
        with suppress(TimeoutError):
            for look in itertools.count():
                now = device.applying.now
                is_newest = now.generation == model.acknowledged
                if now.under_way and (is_newest or not taken_in):
                    return
                if not (look % 100 or now.under_way) and self._is_done(faulty):
                    return  # it was too fast to be seen, or there was nothing to do
                await patience.pause(0.001)
        said = wrong(device, model.wish)
        state = await faulty.read_state()
        await device.tell_what_it_does()
        raise AssertionError(f"{device.id}: nothing was done about {said} {faulty.tale(state)}")

    def _is_done(self, faulty: Faulty) -> bool:
        return is_right(faulty.device, faulty.pusher.model.wish)

    async def _mend(self, faulty: Faulty, kind: str) -> None:
        """The device comes to what was acknowledged, whatever stands in its key; then that is put right."""
        await faulty.until_right([faulty.pusher.model.wish])
        faulty.is_touched = False
        while kind in HOSTILE_WRITES and not await faulty.pusher.push(
            faulty.pusher.model.wish, force=True
        ):
            await self.server.is_up.wait()

    async def strike_server(self, dice: random.Random) -> None:
        """kill -9 of the server, or a stream deleted by its administrator, while something is changed."""
        patience = Patience(WITHIN_S)
        while not any(each.device.applying.now.under_way for each in self.all):
            await patience.pause(0.005)
        before = [each.device.applying.now for each in self.all]
        (kind,) = dice.choices(SERVER_KINDS, _SERVER_WEIGHTS)
        for each in self.all:
            each.note(f"server: {kind}")
        if kind == "server killed":
            await self.server.kill(whole=dice.random() < 0.5)
        else:
            await JetStreamContext(self.client).delete_stream(dice.choice(_STREAMS))
        hit = sum(
            each.device.applying.now.is_still(was)
            for each, was in zip(self.all, before, strict=True)
        )
        (self.hits if hit else self.misses)[kind] += 1
        self.server_strikes += 1
        await asyncio.sleep(dice.uniform(*_LASTS_S))
        if kind == "stream deleted":
            await self.server.stop()
        await self.server.start()
        for each in self.all:
            each.note("server: mended")
        if kind == "stream deleted":
            await self._push_again()

    async def _push_again(self) -> None:
        """What the server had is pushed again, to all, as the operator does who has lost a server."""
        for each in self.all:
            patience = Patience(WITHIN_S)
            while not await each.pusher.push_again():
                await patience.pause(0.1)


@asynccontextmanager
async def ground(folder: Path, count: int, seed: int) -> AsyncGenerator[Ground]:
    """Yield a fleet of *count* devices below *folder*, all enrolled and running."""
    home = fleet_home(folder)
    address = free_address()
    port = int(address.rpartition(":")[2])
    faketime = find_faketime()
    kinds = [each for each in KINDS if each != "clock jumps" or faketime is not None]
    async with AsyncExitStack() as stack:
        server = ServerProcess(home, address)
        await server.start()
        stack.push_async_callback(server.stop)
        fleet = await stack.enter_async_context(Fleet.connect(home))
        client = await stack.enter_async_context(admin(home))
        launchers: list[Launcher] = []
        faulties: list[Faulty] = []
        for number in range(count):
            if number % _AGENTS_A_CLOCK == 0:
                place = folder / f"clock-{number}"
                place.mkdir()
                launchers.append(Launcher(place, faketime))
                stack.callback(launchers[-1].close)
            name = f"pi-{number + 1}"
            device = await stack.enter_async_context(
                Device.made(name, folder / name, port, launchers[-1], seed)
            )
            url = f"tls://127.0.0.1:{device.relay.port}"
            device.toml = await asyncio.to_thread(add_agent, home, name, url=url)
            dice = random.Random(f"{seed} faults of {name}")
            faulties.append(Faulty(device, Pusher(fleet, name, dice), dice))
        fleet_under_faults = Ground(server, client, faulties, kinds)
        await fleet_under_faults.start_agents()
        yield fleet_under_faults

"""Who looks on: must what devices say be so, and do they come to rest?

`watch_claims` compares what devices say with the model at any moment: SUCCESS and NOOP must be so. When all
is mended (`come_to_rest`) every device must be what was acknowledged last, or what was sent since and not
answered; told as such by itself; and then nothing more is done to it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import attrs

from harmony_agent.bus.link import honour_cancellation
from harmony_core.errors import NoAnswer
from harmony_core.wire.actual_state import ActualState
from tests.faults.faulty import WITHIN_S, Faulty
from tests.faults.patience import Patience
from tests.faults.stopwatch import Stopwatch
from tests.faults.things import THINGS, Wish, wrong

__all__ = ["Onlooker"]

_MORE_KIB = 24 * 1024
"""By so much the agents' memory may grow between two times of rest."""
_DESCRIPTORS_MOST = 80
_TRIES = 20
"""So often, for up to 18 s each, a device is asked to look at itself: it may yet have to connect anew."""


@attrs.define
class Onlooker:
    """Looks at *all*; makes them look at themselves while *turns* allows it."""

    all: Sequence[Faulty]
    _turns: asyncio.Semaphore
    _watch: Stopwatch
    claims: int = 0
    """How often what a device says was found to be so."""

    async def come_to_rest(self) -> None:
        """All is mended: every device is what the model says, says so, and does nothing more."""
        await asyncio.gather(*(self._comes_to_rest(each) for each in self.all))

    async def _comes_to_rest(self, faulty: Faulty) -> None:
        model = faulty.pusher.model
        assert faulty.device.agent_runs, (
            f"{faulty.device.id}: its agent has ended\n{faulty.device.log}"
        )
        with self._watch.timed("coming to rest"):
            await faulty.pusher.find_which()
            wish = await faulty.until_right([model.wish, *model.doubtful])
            await self._until_told(faulty, wish)
        faulty.is_touched = False
        async with self._turns:
            await self._is_left_alone(faulty, wish)
        self._weigh(faulty)

    async def _is_left_alone(self, faulty: Faulty, wish: Wish) -> None:
        """All is looked at once more, and nothing is done."""
        before = self._effects(faulty)
        patience = Patience(_TRIES * 0.5)
        while not await self._has_looked(faulty):
            await patience.pause(0.5)
        assert wrong(faulty.device, wish) == []
        assert self._effects(faulty) == before, f"{faulty.device.id}: something was done twice"

    async def _has_looked(self, faulty: Faulty) -> bool:
        """Have it look at all once more. Return whether it has; not while it has yet to connect anew."""
        try:
            async with faulty.pusher.device.reconcile() as looked:
                async for _ in looked:
                    pass
        except NoAnswer:
            return False
        return True

    async def _until_told(self, faulty: Faulty, wish: Wish) -> None:
        """Wait until it has told that it is so."""
        state: ActualState | None = None
        patience = Patience(WITHIN_S)
        with suppress(TimeoutError):
            while True:
                told = faulty.told
                state = await faulty.read_state()
                if state is not None and self._is_told(faulty, state, wish):
                    return
                while state is not None and told == faulty.told:
                    await patience.pause(0.05)
                await patience.pause(0.05)
        await faulty.device.tell_what_it_does()
        raise AssertionError(
            f"{faulty.device.id} does not tell that it is as {faulty.pusher.model.acknowledged}; "
            f"{faulty.tale(state)}"
        )

    def _is_told(self, faulty: Faulty, state: ActualState, wish: Wish) -> bool:
        acknowledged = faulty.pusher.model.acknowledged
        return (
            state.observed_generation == state.generation >= acknowledged
            and state.scores.keys() == wish.keys()
            and all(
                page.outcome.status in {"SUCCESS", "NOOP"}
                and page.observed_generation == state.generation
                for page in state.scores.values()
            )
        )

    def _weigh(self, faulty: Faulty) -> None:
        memory_kib, descriptors = faulty.device.size
        assert descriptors < _DESCRIPTORS_MOST, (
            f"{faulty.device.id} has {descriptors} descriptors: {faulty.device.descriptors}; "
            f"{faulty.tale(None)}"
        )
        if faulty.size is not None and faulty.size[0] == faulty.device.pid:
            assert memory_kib < faulty.size[1] + _MORE_KIB, f"{faulty.device.id}: {memory_kib} KiB"
            return
        faulty.size = (faulty.device.pid, memory_kib, descriptors)

    def _effects(self, faulty: Faulty) -> object:
        """What is another whenever something is done to the device."""
        device = faulty.device
        files = {
            str(path): (path.lstat().st_ino, path.lstat().st_ctime_ns)
            for path in sorted(device.root.rglob("*"))
            if path.is_file()
        }
        units = {name: held.invocation for name, held in device.systemd.units.items()}
        containers = {each.id: each.started_at for each in device.podman.containers.values()}
        return files, units, containers

    def count_repeated(self) -> int:
        """Return how often a unit was started from what it had been started from just before."""
        return sum(
            bool(text) and text == before
            for each in self.all
            for held in each.device.systemd.units.values()
            for before, text in itertools.pairwise(held.starts)
        )

    async def watch_claims(self) -> None:
        """Compare for ever what devices say with what they are: the newest at once, and all in turn."""
        looked_at: Counter[str] = Counter()
        for one in itertools.cycle(self.all):
            honour_cancellation()
            for each in self.all:
                if each is one or each.told != looked_at[each.device.id]:
                    looked_at[each.device.id] = each.told
                    await self._look_at_claims(each)
            await asyncio.sleep(0.02)

    async def _look_at_claims(self, faulty: Faulty) -> None:
        model = faulty.pusher.model
        pushes = model.pushes
        state = await faulty.read_state()
        if state is None:
            return
        assert state.generation >= faulty.newest, f"{faulty.device.id} went back"
        faulty.newest = state.generation
        if (
            model.pushes != pushes
            or model.doubtful
            or faulty.is_touched
            or state.generation != model.acknowledged
        ):
            return
        for name, page in state.scores.items():
            if (
                page.outcome.status in {"SUCCESS", "NOOP"}
                and page.observed_generation == state.generation
                and name in model.wish
            ):
                said = list(THINGS[name].wrong(faulty.device, model.wish[name]))
                assert not said, f"{faulty.device.id} says {page}, and {said} {faulty.tale(state)}"
                self.claims += 1

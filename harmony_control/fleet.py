"""Fleet: the control plane as a Python API.

::

    async with Fleet.connect() as fleet:
        outcome = await fleet.device("pi-1").push(WebAppScore(…), id="web")

A Score that needs what a Pi cannot offer is a type error at ``push``: a device is typed by the topology
it runs. What *this* Pi lacks is `MissingCapability`, raised before anything is pushed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import attrs
from nats.aio.client import Client

from harmony_core.actual_state import ActualState, Heartbeat, from_json
from harmony_core.errors import HarmonyError, NoAnswer, UsageError
from harmony_core.manifest import ScorePolicy, SerializedScore
from harmony_core.outcome import Outcome
from harmony_core.score import Score
from harmony_pi_topology import PiTopology

from ._nats import Bucket, admin
from .entries import Entry, default_id, serialized
from .home import Home
from .pushing import Change, Pushed, check_device, push, read_state
from .resolving import with_digests
from .waiting import Wanted, awaited_with, watching

__all__ = ["Device", "Fleet", "Seen"]

TopologyT_co = TypeVar("TopologyT_co", covariant=True)
Watcher = Callable[[ActualState], None]


@attrs.frozen(kw_only=True)
class Seen:
    """One device, as the control plane knows it. Silent: enrolled, but not heard for 90 s."""

    agent_id: str
    state: ActualState | None
    heartbeat: Heartbeat | None

    @property
    def is_silent(self) -> bool:
        return self.heartbeat is None


class Fleet:
    """Every device of one operator. Made by `connect`."""

    def __init__(self, home: Home, client: Client) -> None:
        self.home = home
        self._client = client

    @classmethod
    @asynccontextmanager
    async def connect(cls, home: Home | None = None) -> AsyncGenerator[Fleet]:
        """Connected by what *home* says; `$HARMONY_HOME`, else ~/.harmony, unless given."""
        home = home or Home.find()
        async with admin(home) as client:
            yield cls(home, client)

    def device(self, agent_id: str) -> Device[PiTopology]:
        """The Pi of that id, whether it was ever heard of or not."""
        return Device(agent_id, self.home, self._client)

    async def agents(self) -> list[Seen]:
        """Every device that is enrolled or has reported, by id."""
        states = {state.agent_id: state for state in await self._states()}
        ids = sorted({*self.home.agents(), *states})
        beats = await asyncio.gather(*(self.device(agent_id).heartbeat() for agent_id in ids))
        return [
            Seen(agent_id=agent_id, state=states.get(agent_id), heartbeat=beat)
            for agent_id, beat in zip(ids, beats, strict=True)
        ]

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[ActualState]]:
        """Every state that any device reports, the newest of each first."""
        async with watching(self._client, "*") as states:
            yield states

    async def _states(self) -> list[ActualState]:
        ids = sorted(self.home.agents())
        found = await asyncio.gather(*(self.device(agent_id).state() for agent_id in ids))
        return [state for state in found if state is not None]


class Device(Generic[TopologyT_co]):
    """One device, typed by the topology that it runs."""

    def __init__(self, agent_id: str, home: Home, client: Client) -> None:
        self.id = agent_id
        self._home = home
        self._client = client

    async def push(
        self,
        score: Score[TopologyT_co],
        *,
        id: str | None = None,
        after: Iterable[str] = (),
        policy: ScorePolicy | None = None,
        timeout_s: float = 300.0,
    ) -> Outcome:
        """Add or replace one Score and wait for its Outcome.

        *id* is the kind's name in lower case unless given. Raises `NoAnswer` when the device has not
        settled in *timeout_s*, and what `put` raises.
        """
        score_id = id or default_id(score)
        entry = Entry(score, after, policy or ScorePolicy())
        state = await self.put_and_wait({score_id: entry}, timeout_s=timeout_s)
        return state.scores[score_id].outcome

    async def put_and_wait(
        self,
        entries: Mapping[str, Entry],
        *,
        remove: Iterable[str] = (),
        timeout_s: float = 300.0,
        force: bool = False,
        resolve: bool = True,
        on_pushed: Callable[[Pushed], None] | None = None,
        on_state: Watcher | None = None,
    ) -> ActualState:
        """`put`, then wait until everything pushed, and what that waits for, is settled: the state then."""
        async with watching(self._client, self.id) as states:
            removed = frozenset(remove)
            pushed = await self.put(entries, remove=removed, force=force, resolve=resolve)
            if on_pushed is not None:
                on_pushed(pushed)
            wanted = Wanted(
                generation=pushed.generation,
                present=awaited_with(entries, pushed.entries),
                absent=removed - pushed.entries.keys(),
            )
            return await self._settled(states, wanted, timeout_s, on_state)

    async def put(
        self,
        entries: Mapping[str, Entry],
        *,
        remove: Iterable[str] = (),
        force: bool = False,
        resolve: bool = True,
    ) -> Pushed:
        """Add or replace *entries*, drop the ids in *remove*, sign, and write. Does not wait.

        Raises `MissingCapability`, `UnknownKind` or `UnsupportedVersion` for what the device would
        refuse (not with *force*), `UnknownDependency` or `DependencyCycle`, and `StoreError`s.
        """
        if resolve:
            entries = {name: await with_digests(entry) for name, entry in entries.items()}
        new = {name: serialized(name, entry) for name, entry in entries.items()}
        warnings: tuple[str, ...] = ()
        if not force:
            needs = {name: entry.score.requires for name, entry in entries.items()}
            warnings = check_device(self.id, await self.state(), list(new.values()), needs)
        pushed = await push(self._home, self._client, self.id, _merged(new, set(remove)))
        return attrs.evolve(pushed, warnings=warnings)

    async def push_again(self) -> Pushed:
        """Write what was signed last once more, from the operator's own store: after the server lost it."""
        return await push(self._home, self._client, self.id, lambda entries: entries)

    async def remove(self, *ids: str, timeout_s: float = 300.0) -> ActualState:
        """Remove Scores and wait until what they made is gone. `UsageError` for an unknown id."""
        return await self.put_and_wait({}, remove=ids, timeout_s=timeout_s)

    async def state(self) -> ActualState | None:
        """What the device said last; None when it never said anything."""
        return await read_state(self._client, self.id)

    async def heartbeat(self) -> Heartbeat | None:
        """Its newest heartbeat; None when none came for 90 s."""
        found = await Bucket(self._client, "heartbeat").get(self.id)
        return from_json(found.value, Heartbeat) if found is not None and found.value else None

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[ActualState]]:
        """Every state that it reports, the newest first of all."""
        async with watching(self._client, self.id) as states:
            yield states

    async def _settled(
        self,
        states: AsyncIterator[ActualState],
        wanted: Wanted,
        timeout_s: float,
        on_state: Watcher | None,
    ) -> ActualState:
        last: ActualState | None = None
        deadline = time.monotonic() + timeout_s
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                async for state in states:
                    last = state
                    if on_state is not None:
                        on_state(state)
                    if wanted.is_settled(state):
                        return state
        except TimeoutError:
            pass
        raise await self._no_answer(last, wanted, timeout_s)

    async def _no_answer(
        self, last: ActualState | None, wanted: Wanted, timeout_s: float
    ) -> HarmonyError:
        beat = await self.heartbeat()
        if beat is None:
            heard = "it is silent: no heartbeat for 90 s"
        elif last is None or last.generation < wanted.generation:
            heard = f"it is alive, at generation {beat.generation} of {wanted.generation}"
        else:
            pages = wanted.pages(last)
            told = [
                f"{n} {p.outcome.status} {p.outcome.message}".rstrip() for n, p in pages.items()
            ]
            heard = "; ".join(told) or "it has not looked at these Scores yet"
        return NoAnswer(f"{self.id} has not settled within {timeout_s:g} s: {heard}")


def _merged(new: Mapping[str, SerializedScore], remove: set[str]) -> Change:
    def change(before: Mapping[str, SerializedScore]) -> Mapping[str, SerializedScore]:
        if unknown := sorted(remove - before.keys()):
            known = ", ".join(sorted(before)) or "none"
            raise UsageError(f"there is no Score {unknown[0]!r} on this device; there are: {known}")
        after = {**before, **new}
        return {name: entry for name, entry in after.items() if name not in remove}

    return change

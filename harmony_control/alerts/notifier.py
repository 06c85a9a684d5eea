"""Tells people what is wrong, and when it is over: each thing once, however many watch.

    what is wrong now, what was told -> what is due -> wait for what else comes -> claim -> send -> sent

Nothing is queued: what is due is found anew at each look, so a receiver that was away is told how it is when
it is back, in one message.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import attrs
from nats.aio.client import Client

from harmony_control.fleet_view.row import DeviceRow
from harmony_core.errors import HarmonyError

from .channels import Channel
from .find import Group, Kind, Problem, find_problems
from .message import Alert, Message
from .records import Record, Records, Told
from .settings import Settings

if TYPE_CHECKING:
    from harmony_control.rollout.state import Look
    from harmony_core.wire.root import Root

__all__ = ["Notifier", "Watched", "send_test"]

LOOK_S = 2.0
SETTLE_S = 45.0
"""Once the message server is reached again, nothing is believed for so long: everybody beats as soon as they
reach it, within 30 s, and until then seems to be away."""
RETRY_LEAST_S = 2.0
RETRY_MOST_S = 300.0
_MORE_LEAST = 5
_OF_DOCUMENTS: frozenset[Kind] = frozenset({"RolloutAborted", "RootExpires"})
_LOG = logging.getLogger("harmony.alerts")


class Watched(Protocol):
    """What is known of the fleet."""

    @property
    def is_current(self) -> bool:
        """Whether what is known of devices is what the fleet says now."""
        ...

    def rows(self) -> Sequence[DeviceRow]: ...

    @property
    def has_documents(self) -> bool:
        """Whether rollouts and the root document were ever read."""
        ...

    @property
    def rollouts(self) -> Mapping[str, Look]: ...

    @property
    def root(self) -> Root | None: ...


class Notifier:
    """Made for one fleet; `run` tells until it is cancelled."""

    def __init__(
        self,
        watched: Watched,
        client: Client,
        fleet: str,
        settings: Settings,
        channels: Sequence[Channel],
        *,
        settle_s: float = SETTLE_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._watched = watched
        self._settings = settings
        self._settle_s = settle_s
        self._clock = clock
        self._was_current = False
        self._trusted_from_s = 0.0
        self._tellers = [
            _Teller(each, Records(client, each.name, clock=clock), fleet, settings.wait_s, clock)
            for each in channels
        ]

    @property
    def counts(self) -> Mapping[tuple[str, str], int]:
        """Return how many messages were ``sent``, and how many ``failed``, by channel and that word."""
        return {
            (each.channel.name, result): each.counts[result]
            for each in self._tellers
            for result in ("sent", "failed")
        }

    async def begin(self) -> None:
        """Read what was reported before. Raise `StoreError`s: without it, nothing can be reported."""
        for each in self._tellers:
            await each.records.read()

    async def run(self) -> None:
        """Look again and again, until cancelled. Channels do not wait for each other."""
        async with asyncio.TaskGroup() as tasks:
            for each in self._tellers:
                tasks.create_task(self._run(each))

    async def _run(self, teller: _Teller) -> None:
        while True:
            try:
                await self.look(teller)
            except HarmonyError as error:
                _LOG.warning("alerts by %s: %s", teller.channel.name, error.message)
            except Exception:  # noqa: BLE001 - a defect there must not silence all that comes later
                _LOG.exception("alerts by %s", teller.channel.name)
            await asyncio.sleep(LOOK_S)

    async def look_once(self) -> None:
        """Look once, by every channel."""
        for each in self._tellers:
            await self.look(each)

    async def look(self, teller: _Teller) -> None:
        """Report what is due through that channel. Raise `StoreError`s."""
        if (found := self._find()) is not None:
            await teller.look(found, self._kinds())

    def _kinds(self) -> frozenset[Kind]:
        """Return the kinds of problems that can be known now: of the rest nothing is reported, not even an
        end."""
        unknown = frozenset[Kind]() if self._watched.has_documents else _OF_DOCUMENTS
        return frozenset(self._settings.kinds) - unknown

    def _find(self) -> dict[Group, Problem] | None:
        """Return what is wrong; None while that is not known."""
        now_s = self._clock()
        if not self._watched.is_current:
            if self._was_current:
                self._trusted_from_s = float("inf")
            return None
        self._was_current = True
        if self._trusted_from_s == float("inf"):
            self._trusted_from_s = now_s + self._settle_s
        if now_s < self._trusted_from_s:
            return None
        return find_problems(
            self._watched.rows(),
            self._watched.rollouts,
            self._watched.root,
            group_by=self._settings.group_by,
            root_expires=timedelta(days=self._settings.root_expires_days),
            now=datetime.now(UTC),
        )


class _Teller:
    """One channel, and what was told by it."""

    def __init__(
        self,
        channel: Channel,
        records: Records,
        fleet: str,
        wait_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.channel = channel
        self.records = records
        self.counts: Counter[str] = Counter()
        self._fleet = fleet
        self._wait_s = wait_s
        self._clock = clock
        self._due_since_s: float | None = None
        self._retry_at_s = 0.0
        self._failed = 0

    async def look(self, found: Mapping[Group, Problem], kinds: Collection[Kind]) -> None:
        """Report what is due of *kinds*, if it has lasted long enough. Raise `StoreError`s."""
        now_s = self._clock()
        if not self._find_due(found, kinds):
            self._due_since_s = None
            return
        if self._due_since_s is None:
            self._due_since_s = now_s
        if now_s - self._due_since_s < self._wait_s or now_s < self._retry_at_s:
            return
        await self.records.read()
        claimed = [
            record
            for group, state in sorted(self._find_due(found, kinds).items())
            if (record := await self._claim(group, state, found.get(group))) is not None
        ]
        if claimed:
            await self._send(claimed, found)

    def _find_due(
        self, found: Mapping[Group, Problem], kinds: Collection[Kind]
    ) -> dict[Group, Told]:
        """Return what must be reported, and for which group."""
        told = self.records.all
        due: dict[Group, Told] = {}
        for group in {*found, *told}:
            problem, record = found.get(group), told.get(group)
            if group.kind not in kinds or self.records.is_claimed(group):
                continue
            if problem is not None and _is_firing_due(problem, record):
                due[group] = "firing"
            elif problem is None and record is not None and not _is_over(record):
                due[group] = "resolved"
        return due

    async def _claim(self, group: Group, state: Told, problem: Problem | None) -> Record | None:
        """Return the record that lets us report it; None where somebody else was quicker."""
        before = self.records.all.get(group)
        count = problem.count if problem else before.count if before else 1
        is_again = before is not None and not before.is_sent and before.state == state
        record = Record(
            group=group,
            state=state,
            is_sent=False,
            count=count,
            id=before.id if before is not None and is_again else secrets.token_hex(16),
            by=self.records.me,
        )
        return record if await self.records.write(record) else None

    async def _send(self, claimed: Sequence[Record], found: Mapping[Group, Problem]) -> None:
        message = Message(fleet=self._fleet, alerts=[_alert(each, found) for each in claimed])
        problem = await self.channel.send(message)
        self.counts["failed" if problem else "sent"] += 1
        if problem:
            wait_s = min(RETRY_MOST_S, RETRY_LEAST_S * 2.0**self._failed)
            self._failed = min(self._failed + 1, 16)
            self._retry_at_s = self._clock() + wait_s
            _LOG.warning(
                "%s does not take %r: %s; it is tried again in %g s",
                self.channel.name,
                message.title,
                problem,
                wait_s,
            )
            return
        self._failed = 0
        self._due_since_s = None
        for each in claimed:
            await self.records.write(attrs.evolve(each, is_sent=True))


def _is_firing_due(problem: Problem, record: Record | None) -> bool:
    if record is None or record.state == "resolved" or not record.is_sent:
        return True
    # Of one more nobody is woken again; of as many more as there were, people want to know.
    return problem.count >= max(2 * record.count, record.count + _MORE_LEAST)


def _is_over(record: Record) -> bool:
    return record.state == "resolved" and record.is_sent


def _alert(record: Record, found: Mapping[Group, Problem]) -> Alert:
    problem = found.get(record.group) if record.state == "firing" else None
    return Alert(
        id=record.id,
        state=record.state,
        kind=record.group.kind,
        of=record.group.of,
        count=record.count,
        devices=problem.devices if problem else {},
        text=problem.text if problem else "",
    )


async def send_test(channels: Sequence[Channel], fleet: str) -> Mapping[str, str]:
    """Send a test through every channel. Return why it was not accepted, by the channel's name; empty once it
    was."""
    alert = Alert(id=secrets.token_hex(16), state="test", kind=None, of="", count=1, devices={})
    message = Message(fleet=fleet, alerts=[alert])
    problems = await asyncio.gather(*(each.send(message) for each in channels))
    return dict(zip((each.name for each in channels), problems, strict=True))

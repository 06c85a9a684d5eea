"""The contract of every capability: what any reconciler passes, of whatever resource, fake and real.

::

    class TestMyLamps(CapabilityContract[Lamp]):
        @pytest.fixture
        def host(self) -> CapabilityUnderTest[Lamp]: ...

What only one type of resource can be asked stands in that type's own contract. What is done is asked of the
place itself too, past the reconciler: a reconciler that only remembers does not pass.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.errors import CapabilityError, NotOurs
from harmony_core.reconciler import AnyReconciler
from harmony_core.resources import Resource

__all__ = ["CapabilityContract", "CapabilityUnderTest", "Outsider"]

ResourceT = TypeVar("ResourceT", bound=Resource)

_CUT_SHORT_AFTER = (0, 1, 2, 3, 5, 8, 13)
"""After so many turns of the event loop."""


class Outsider(Protocol):
    """Somebody else at the same place, who goes past the reconciler."""

    def identity(self, key: str) -> object | None:
        """Return what is really there: equal as long as nobody has touched it; None when nothing is there."""

    def disturb(self, key: str) -> None:
        """Change what is there under *key*, so that it is not as it was wished for."""

    def make_foreign(self) -> str:
        """Make a thing of this type that was never Harmony's; answer with its key."""
        ...


@attrs.frozen(kw_only=True)
class CapabilityUnderTest(Generic[ResourceT]):
    """A reconciler at a place where nothing was made yet, and what to wish for there."""

    reconciler: AnyReconciler
    restarted: Callable[[], AnyReconciler]
    """Makes a reconciler over the same place and records, as after a restart of the agent."""
    wish: ResourceT
    changed: ResourceT
    """The same thing as *wish*, to be otherwise."""
    beside: ResourceT
    """Another thing."""
    refused: ResourceT
    """One that cannot be made at this place, since something stands in its way."""
    outsider: Outsider

    async def applied(self, resource: ResourceT) -> Change:
        """Converge *resource* until nothing is pending; the first Change, with the state it came to."""
        first = change = _change((await self.reconciler.converge([resource], apply=True))[0])
        while change.pending is not None:
            await asyncio.sleep(change.pending.look_again_s)
            change = _change((await self.reconciler.converge([resource], apply=True))[0])
        return attrs.evolve(first, after=change.after, pending=None)

    async def planned(self, resource: ResourceT) -> Change:
        """Return the Change that would converge *resource*."""
        return _change((await self.reconciler.converge([resource], apply=False))[0])

    async def removed(self, key: str) -> Change:
        """Remove *key* until nothing is pending; the first Change."""
        first = change = _change((await self.reconciler.remove([key], apply=True))[0])
        while change.pending is not None:
            await asyncio.sleep(change.pending.look_again_s)
            change = _change((await self.reconciler.remove([key], apply=True))[0])
        return first


def _change(result: Change | Exception) -> Change:
    if isinstance(result, Exception):
        raise result
    return result


class CapabilityContract(Generic[ResourceT]):
    """Subclass with a name that pytest collects, and a fixture `host`."""

    @pytest.fixture
    @abstractmethod
    def host(self) -> CapabilityUnderTest[ResourceT]:
        """Return a place where nothing was made yet."""
        raise NotImplementedError

    async def test_it_says_of_which_resource_it_is(
        self, host: CapabilityUnderTest[ResourceT]
    ) -> None:
        resource_class: object = host.reconciler.resource_class
        assert inspect.isclass(resource_class), "resource_class is a class, not its resource_type"
        assert issubclass(resource_class, Resource)
        assert isinstance(host.wish, resource_class)
        assert re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", resource_class.resource_type)
        assert host.wish.id == f"{resource_class.resource_type}:{host.wish.key}"

    async def test_its_resource_says_what_a_policy_asks(
        self, host: CapabilityUnderTest[ResourceT]
    ) -> None:
        paths = type(host.wish).paths_of(host.wish.key)
        assert paths is not None, "without paths_of it is refused on every device"
        assert all(path.startswith("/") for path in paths)
        units = type(host.wish).units_of(host.wish.key)
        assert units is not None, "without units_of it is refused on a device that is an appliance"
        assert all("." in unit for unit in units), "a unit's name has its type, as in web.service"
        assert host.wish.privileges is not None, "without privileges it is refused on every device"

    async def test_made_once_it_is_left_alone(self, host: CapabilityUnderTest[ResourceT]) -> None:
        made = await host.applied(host.wish)
        assert made.changed
        assert made.resource == host.wish.id
        identity = host.outsider.identity(host.wish.key)
        assert identity is not None
        again = await host.applied(host.wish)
        assert not again.changed
        assert again.before == again.after == made.after
        assert host.outsider.identity(host.wish.key) == identity

    async def test_a_restart_changes_nothing(self, host: CapabilityUnderTest[ResourceT]) -> None:
        await host.applied(host.wish)
        identity = host.outsider.identity(host.wish.key)
        after = attrs.evolve(host, reconciler=host.restarted())
        assert not (await after.applied(host.wish)).changed
        assert host.outsider.identity(host.wish.key) == identity
        await after.reconciler.close()

    async def test_a_dry_run_changes_nothing_and_says_what_is_done_then(
        self, host: CapabilityUnderTest[ResourceT]
    ) -> None:
        planned = await host.planned(host.wish)
        assert planned.changed
        assert host.outsider.identity(host.wish.key) is None
        assert await host.reconciler.observe(host.wish.key) is None
        assert (await host.applied(host.wish)).actions == planned.actions

    async def test_a_dry_run_of_a_change_changes_nothing_either(
        self, host: CapabilityUnderTest[ResourceT]
    ) -> None:
        await host.applied(host.wish)
        identity = host.outsider.identity(host.wish.key)
        planned = await host.planned(host.changed)
        assert planned.changed
        assert host.outsider.identity(host.wish.key) == identity
        assert (await host.applied(host.changed)).actions == planned.actions
        assert host.outsider.identity(host.wish.key) != identity

    async def test_a_dry_run_of_a_removal_takes_nothing_away(
        self, host: CapabilityUnderTest[ResourceT]
    ) -> None:
        await host.applied(host.wish)
        identity = host.outsider.identity(host.wish.key)
        (planned,) = await host.reconciler.remove([host.wish.key], apply=False)
        assert _change(planned).changed
        assert host.outsider.identity(host.wish.key) == identity

    async def test_what_is_told_afterwards_is_what_is_seen(
        self, host: CapabilityUnderTest[ResourceT]
    ) -> None:
        for wish in (host.wish, host.changed):
            told = (await host.applied(wish)).after
            assert told is not None
            assert told == await host.reconciler.observe(wish.key)
            assert told == await host.restarted().observe(wish.key)
            assert told.is_ready, "what was made is ready: see State.is_ready"

    async def test_what_somebody_else_has_changed_is_seen_and_put_right(
        self, host: CapabilityUnderTest[ResourceT]
    ) -> None:
        made = (await host.applied(host.wish)).after
        host.outsider.disturb(host.wish.key)
        found = await host.reconciler.observe(host.wish.key)
        change = await host.applied(host.wish)
        assert change.changed
        assert change.before == found
        assert change.after == await host.reconciler.observe(host.wish.key)
        assert found != made
        assert not (await host.applied(host.wish)).changed

    async def test_an_error_stands_beside_the_changes_of_the_others(
        self, host: CapabilityUnderTest[ResourceT]
    ) -> None:
        wishes = [host.wish, host.refused, host.beside]
        first, error, last = await host.reconciler.converge(wishes, apply=True)
        assert isinstance(error, CapabilityError)
        assert [_change(each).resource for each in (first, last)] == [host.wish.id, host.beside.id]
        for each in (host.wish, host.beside):
            await host.applied(each)
            assert host.outsider.identity(each.key) is not None

    async def test_removed_it_is_gone_and_removed_again_nothing_happens(
        self, host: CapabilityUnderTest[ResourceT]
    ) -> None:
        await host.applied(host.wish)
        await host.applied(host.beside)
        beside = host.outsider.identity(host.beside.key)
        assert (await host.removed(host.wish.key)).changed
        assert host.outsider.identity(host.wish.key) is None
        assert await host.reconciler.observe(host.wish.key) is None
        assert not (await host.removed(host.wish.key)).changed
        assert host.outsider.identity(host.beside.key) == beside

    async def test_what_was_made_before_a_restart_is_removed_after_it(
        self, host: CapabilityUnderTest[ResourceT]
    ) -> None:
        """All that is needed stands in the records."""
        await host.applied(host.wish)
        after = attrs.evolve(host, reconciler=host.restarted())
        assert (await after.removed(host.wish.key)).changed
        assert host.outsider.identity(host.wish.key) is None
        await after.reconciler.close()

    async def test_what_somebody_else_has_made_is_not_taken_away(
        self, host: CapabilityUnderTest[ResourceT]
    ) -> None:
        key = host.outsider.make_foreign()
        identity = host.outsider.identity(key)
        assert identity is not None
        for apply in (False, True):
            (error,) = await host.reconciler.remove([key], apply=apply)
            assert isinstance(error, NotOurs)
            assert host.outsider.identity(key) == identity

    async def test_what_is_not_there_is_none_and_nothing_is_no_work(
        self, host: CapabilityUnderTest[ResourceT]
    ) -> None:
        assert await host.reconciler.observe(host.wish.key) is None
        assert list(await host.reconciler.converge([], apply=True)) == []
        assert list(await host.reconciler.remove([], apply=True)) == []

    @pytest.mark.parametrize("turns", _CUT_SHORT_AFTER)
    async def test_cut_short_at_any_turn_it_is_made_whole_by_the_next_call(
        self, host: CapabilityUnderTest[ResourceT], turns: int
    ) -> None:
        await host.applied(host.wish)
        await _cut_short(host.reconciler.converge([host.changed, host.beside], apply=True), turns)
        for each in (host.changed, host.beside):
            await host.applied(each)
            assert not (await host.applied(each)).changed
        await _cut_short(
            host.reconciler.remove([host.changed.key, host.beside.key], apply=True), turns
        )
        for each in (host.changed, host.beside):
            await host.removed(each.key)
            assert host.outsider.identity(each.key) is None

    async def test_it_can_be_asked_whether_it_is_available(
        self, host: CapabilityUnderTest[ResourceT]
    ) -> None:
        assert (await host.reconciler.availability()).available

    async def test_it_can_be_watched_and_given_up_more_than_once(
        self, host: CapabilityUnderTest[ResourceT]
    ) -> None:
        def told(_: str | None) -> None:
            """Do nothing with what is heard."""

        await host.applied(host.wish)
        await host.reconciler.watch([host.wish.key], told)
        await host.reconciler.watch([], told)
        await host.reconciler.close()
        await host.reconciler.close()


async def _cut_short(work: Any, turns: int) -> None:
    """Begin *work*, and cancel it after so many turns of the event loop, unless it has ended."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

"""Reconcilers: what stands behind a capability on a real device, one a resource type, all of one shape.

A Score never sees one. The Stage calls it, after policy and ledger, with ``apply=True`` to do and with
``apply=False`` to say what would be done, by the same code path.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import attrs

from .change import Change
from .resources import Resource, State

__all__ = [
    "DELETES_DATA",
    "ORIGINAL_MAX_BYTES",
    "AnyReconciler",
    "Availability",
    "Backups",
    "JsonRecord",
    "MemoryBackups",
    "MemoryRecords",
    "Offers",
    "OnChange",
    "Placed",
    "Preparing",
    "Reachability",
    "Reconciler",
    "Records",
    "Remembering",
    "Unwatched",
]

ResourceT = TypeVar("ResourceT", bound=Resource)
StateT_co = TypeVar("StateT_co", bound=State, covariant=True)

JsonRecord: TypeAlias = Mapping[str, Any]

OnChange: TypeAlias = Callable[[str | None], None]
"""Called with the key of what may have changed; with None when events may have been missed."""


@attrs.frozen(kw_only=True)
class Availability:
    """Whether the daemon behind a capability answers now. Being *offered* is another matter: decided
    once, when the agent looks at its device."""

    available: bool
    reason: str = ""


class Reconciler(Protocol[ResourceT, StateT_co]):
    """Looks at, and changes, one type of resource on one device.

    Every method raises only `CapabilityError`s for what the device does, and ends in bounded time.
    """

    @property
    def resource_class(self) -> type[ResourceT]:
        """The class of the resources it takes. Its `Resource.resource_type` is the word in their ids."""
        ...

    async def converge(
        self, resources: Sequence[ResourceT], *, apply: bool
    ) -> Sequence[Change | Exception]:
        """Make each of *resources* as it says, and return one result for each, in order.

        With ``apply=False``, change nothing: each Change is what ``apply=True`` would do next. For a resource
        that cannot be converged, return its error, beside the others' Changes; `NotReady` for one that has to
        wait for something, such as its content, before anything is done. The next call completes one that was
        cancelled or killed at any instruction.
        """
        ...

    async def observe(self, key: str) -> StateT_co | None:
        """Return what is there now; None when nothing is."""
        ...

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        """Remove what was made under each key. This needs nothing but its `Records`, and is idempotent."""
        ...

    async def availability(self) -> Availability:
        """Ask the daemon, briefly. Repair watching here if it has stopped, and then call *on_change* with
        None."""
        ...

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Call *on_change* from now on with each of *keys* soon after what is there may have changed.

        Watching has begun when this returns, so that a look made afterwards misses nothing. *keys*
        replaces those of the call before, without a gap for those in both; none are watched in the end.
        ``on_change(None)`` says that events may have been missed, and everything must be looked at. A call
        too many is fine, one too few is a defect; what we change ourselves is told like any other change.

        *on_change* is called in the event loop, never awaited, and must not raise. Nothing is done while
        nothing happens, and nothing is ever written. Raises a `CapabilityError` when not all can be
        watched: what can be is, and the rest is left to the agent's periodic pass.
        """
        ...

    async def close(self) -> None:
        """Give up connections, threads and watches. Nothing is reported after this returns. Idempotent."""
        ...


@runtime_checkable
class Placed(Protocol):
    """A `Reconciler` that acts now here, now there: on whichever of two devices leads, for instance.

    What is otherwise in another place was changed by nobody: it is no drift, and is brought about also where
    drift is only told. Whoever moves calls ``on_change(None)`` of `Reconciler.watch`, to have it looked at.
    """

    @property
    def resource_class(self) -> type[Resource]: ...

    @property
    def place(self) -> str:
        """Where it acts now: any text that is another for another place."""
        ...


@runtime_checkable
class Preparing(Protocol):
    """A `Reconciler` that can do what takes long, or may fail, before anything that runs is touched."""

    @property
    def resource_class(self) -> type[Resource]: ...

    async def prepare(self, resources: Sequence[Any]) -> None:
        """Prepare what `converge` will need for *resources*. Change nothing that is there.

        Raise `NotReady` while that takes its time, and the `CapabilityError` that `converge` would raise.
        """


@runtime_checkable
class Remembering(Protocol):
    """A `Reconciler` that remembers what costs too much to be looked at in every pass."""

    @property
    def resource_class(self) -> type[Resource]: ...

    def ask_again(self, keys: Collection[str] | None) -> None:
        """Have the next `Reconciler.converge` that applies look at each of *keys* again: a person has asked.

        None stands for all keys. Return at once; until then a plan answers `UnknownUntilApplied`.
        """
        ...

    async def look_again(self, keys: Collection[str]) -> None:
        """Look now at those of *keys* for which a plan would answer `UnknownUntilApplied`; change nothing.

        This is for a Score whose drift is only reported: the plan that follows says what is so.
        """
        ...


class Unwatched:
    """For the reconciler of something that tells nobody when it changes.

    Derive from it in place of writing `Reconciler.watch`: the agent's periodic pass finds what changed.
    """

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Return at once: there is nothing to watch, and *on_change* is never called."""

    async def close(self) -> None:
        """Do nothing: nothing is held open."""


AnyReconciler: TypeAlias = Reconciler[Any, State]
Offers: TypeAlias = Mapping[str, AnyReconciler]
"""What a device offers: the capability's name, and what stands behind it."""


DELETES_DATA = "deletes_data"
"""In the record of a resource: true where removing it deletes data for good, so that it is asked first, as
a large removal is."""


class Records(Protocol):
    """What a reconciler must remember of a resource between two looks, across restarts.

    Such as the invocation that was started from a unit file. Kept beside the ledger, so that teardown
    needs neither the Score nor its package.
    """

    def get(self, resource_id: str) -> JsonRecord | None:
        """Return the newest record; None when there is none."""
        ...

    async def put(self, resource_id: str, record: JsonRecord) -> None:
        """Store *record*, durably once this returns. Write nothing when it is the same as before."""
        ...

    async def forget(self, resource_id: str) -> None:
        """Delete the record; durable once this returns."""
        ...


class MemoryRecords:
    """Records that end with the process: for folders, tests and dry runs."""

    def __init__(self) -> None:
        self._records: dict[str, JsonRecord] = {}

    def get(self, resource_id: str) -> JsonRecord | None:
        return self._records.get(resource_id)

    async def put(self, resource_id: str, record: JsonRecord) -> None:
        self._records[resource_id] = record

    async def forget(self, resource_id: str) -> None:
        self._records.pop(resource_id, None)


ORIGINAL_MAX_BYTES = 1024 * 1024
"""Of one thing that was there before us, so many are kept and no more."""


class Backups(Protocol):
    """What stood there before us, whole: kept apart, readable by root alone, never told to anybody."""

    async def keep(self, resource_id: str, content: bytes) -> None:
        """Keep *content*, durably once this returns, in place of what was kept before.

        Raise `PriorTooLarge` where that is more than may be kept, for one resource or for all.
        """

    async def get(self, resource_id: str) -> bytes | None:
        """Return what was kept; None when nothing was."""
        ...

    async def forget(self, resource_id: str) -> None:
        """Delete what was kept; durable once this returns."""


class MemoryBackups:
    """Originals that end with the process: for tests and dry runs."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    async def keep(self, resource_id: str, content: bytes) -> None:
        self._kept[resource_id] = content

    async def get(self, resource_id: str) -> bytes | None:
        return self._kept.get(resource_id)

    async def forget(self, resource_id: str) -> None:
        self._kept.pop(resource_id, None)


class Reachability(Protocol):
    """Whether the device can be told what to do: what a change of its network must not end."""

    async def reachable(self) -> bool:
        """Return whether the control plane answers a *new* connection, made now, by any route.

        This takes at most some ten seconds and never raises. An older connection proves nothing: it may have
        been made by a route that is gone.
        """
        ...

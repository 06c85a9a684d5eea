"""Reconcilers: what stands behind a capability on a real device, one a resource type, all of one shape.

A Score never sees one. The Stage calls it, after policy and ledger, with ``apply=True`` to do and with
``apply=False`` to say what would be done, by the same code path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import attrs

from .change import Change
from .resources import Resource, State

__all__ = [
    "AnyReconciler",
    "Availability",
    "JsonRecord",
    "MemoryRecords",
    "Offers",
    "Reconciler",
    "Records",
]

ResourceT = TypeVar("ResourceT", bound=Resource)
StateT_co = TypeVar("StateT_co", bound=State, covariant=True)

JsonRecord: TypeAlias = Mapping[str, Any]


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
    def resource_type(self) -> type[ResourceT]: ...

    async def converge(
        self, resources: Sequence[ResourceT], *, apply: bool
    ) -> Sequence[Change | Exception]:
        """Bring each of *resources* to what it says and answer with one result each, in order.

        With ``apply=False`` nothing is changed, and each Change is what ``apply=True`` would do next.
        A resource that cannot be converged is answered with its error, beside the others' Changes.
        A call that was cancelled or killed at any instruction is made whole by the next one.
        """
        ...

    async def observe(self, key: str) -> StateT_co | None:
        """What is there now; None when nothing is."""
        ...

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        """Take away what was made under each key. Needs nothing but its `Records`; idempotent."""
        ...

    async def availability(self) -> Availability:
        """Ask the daemon, briefly."""
        ...


AnyReconciler: TypeAlias = Reconciler[Any, State]
Offers: TypeAlias = Mapping[str, AnyReconciler]
"""What a device offers: the capability's name, and what stands behind it."""


class Records(Protocol):
    """What a reconciler must remember of a resource between two looks, across restarts.

    Such as the invocation that was started from a unit file. Kept beside the ledger, so that teardown
    needs neither the Score nor its package.
    """

    def get(self, resource_id: str) -> JsonRecord | None:
        """The newest record; None when there is none."""
        ...

    async def put(self, resource_id: str, record: JsonRecord) -> None:
        """Remember *record*, durably once this returns. Writes nothing when it is what is there."""
        ...

    async def forget(self, resource_id: str) -> None:
        """Remember nothing; durable once this returns."""
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

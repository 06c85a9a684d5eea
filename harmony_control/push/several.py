"""One push to several devices: every one is asked first, so that all get it or none does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from harmony_core.errors import HarmonyError

from .push import Pushed

if TYPE_CHECKING:
    from harmony_control.device import Device, Prepared

__all__ = ["PreparedPush", "each_of"]

ValueT = TypeVar("ValueT")
DoneT = TypeVar("DoneT")

_AT_ONCE = 16
"""How many devices are asked, or written to, side by side."""


async def each_of(
    values: Mapping[str, ValueT], do: Callable[[str, ValueT], Awaitable[DoneT]]
) -> dict[str, DoneT | HarmonyError]:
    """Return, by name, the result of *do* for each of *values*, or its `HarmonyError`: one failure does not
    stop the others."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(name: str, value: ValueT) -> DoneT | HarmonyError:
        async with places:
            try:
                return await do(name, value)
            except HarmonyError as error:
                return error

    async with asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(one(name, value)) for name, value in values.items()}
    return {name: task.result() for name, task in tasks.items()}


@attrs.frozen(kw_only=True)
class PreparedPush:
    """What each of the devices has said to it. Made by `Fleet.prepare`."""

    devices: Mapping[str, Device[Any]]
    answers: Mapping[str, Prepared | HarmonyError]
    force: bool

    @property
    def refused(self) -> Mapping[str, HarmonyError]:
        """The reason why it cannot be pushed, by device."""
        return {name: each for name, each in self.answers.items() if isinstance(each, HarmonyError)}

    async def put(
        self, *, expires_in: timedelta | None = None
    ) -> Mapping[str, Pushed | HarmonyError]:
        """Write the manifest for each device that has not refused it, as `Device.put` does. Do not wait."""
        ready = {
            name: each for name, each in self.answers.items() if not isinstance(each, HarmonyError)
        }
        return await each_of(
            ready,
            lambda name, each: self.devices[name].put_prepared(
                each, force=self.force, expires_in=expires_in
            ),
        )

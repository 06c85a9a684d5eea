"""ComposeScore: the services of one project, as a Compose file has them.

    networks, volumes, files -> each service, once those that it depends on are so far
                             -> what failed, and what waits for what, all told

A service that fails keeps back those that depend on it, and no others. Nothing waits here: what is not so far
yet is told, and looked at again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Literal, Protocol, Self, TypeAlias

import attrs
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from harmony_core import (
    Container,
    HasContainerNetworks,
    HasContainers,
    HasFiles,
    HasVolumes,
    Inventory,
    Outcome,
    Score,
    outcome_of,
)
from harmony_core.capabilities import ContainerRuntime
from harmony_core.change import Changes, NotReady
from harmony_core.resources import Completed, ContainerFields, Running, in_words

from .container_network import ContainerNetworkScore
from .file import FileScore
from .volume import VolumeScore

__all__ = ["ComposeDependency", "ComposeHost", "ComposeScore", "ComposeService"]

ServiceName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-zA-Z0-9._-]{1,100}$"),
    in_words("write a service's name of letters, digits and ._-, as in web"),
]
Condition: TypeAlias = Literal[
    "service_started", "service_healthy", "service_completed_successfully"
]
_SO_FAR: Mapping[Condition, str] = {
    "service_started": "to be started",
    "service_healthy": "to be healthy",
    "service_completed_successfully": "to end well",
}
_LOOK_AGAIN_S = 10.0
"""What a service waits for tells when it is there; this is for what was not heard."""


class ComposeHost(HasContainers, HasVolumes, HasContainerNetworks, HasFiles, Protocol):
    """A host for a project: it runs containers, with networks and volumes of their own, and keeps files."""


class ComposeDependency(BaseModel):
    """How far another service must be before this one is touched."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    condition: Condition = "service_started"
    """Whether it must have been started, be in order, or have ended with exit code 0."""
    required: bool = True
    """Whether this one is kept back when the other has failed."""


class ComposeService(ContainerFields):
    """A container of a project, and what it waits for."""

    depends_on: dict[ServiceName, ComposeDependency] = Field(
        default_factory=dict[str, ComposeDependency],
        description="Services of this project that must be so far before this one is touched.",
    )

    @property
    def container(self) -> Container:
        """The container that it is."""
        return Container(**{name: getattr(self, name) for name in ContainerFields.model_fields})


class ComposeScore(Score[ComposeHost]):
    """The services of a project run, each once those that it depends on are so far.

    Written by hand or, mostly, by `harmony push-score AGENT compose.yaml`. A service that is no longer named
    loses its container; volumes stay.
    """

    services: dict[ServiceName, ComposeService] = Field(
        min_length=1,
        description="Containers by the name of their service, each with depends_on beside what a "
        "ContainerScore has.",
    )
    networks: tuple[ContainerNetworkScore, ...] = Field(
        default=(), description="Networks, as a ContainerNetworkScore has them."
    )
    volumes: tuple[VolumeScore, ...] = Field(
        default=(), description="Volumes, as a VolumeScore has them."
    )
    files: tuple[FileScore, ...] = Field(
        default=(), description="Files that services mount, as a FileScore has them."
    )

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        for what, names in (
            ("services: the container", [each.name for each in self.services.values()]),
            ("networks: the network", [each.name for each in self.networks]),
            ("volumes: the volume", [each.name for each in self.volumes]),
            ("files: the file", [each.path for each in self.files]),
        ):
            if twice := next((each for each in names if names.count(each) > 1), None):
                raise ValueError(f"{what} {twice} is named twice; rename or remove one of them")
        return self

    @model_validator(mode="after")
    def _dependencies_can_be_met(self) -> Self:
        for name, service in self.services.items():
            for other, dependency in service.depends_on.items():
                if problem := _find_problem(self.services.get(other), dependency.condition):
                    raise ValueError(f"services.{name}.depends_on: {other} {problem}")
        self._order()
        return self

    def _order(self) -> list[str]:
        """Return the services, each after those that it depends on."""
        graph = {name: each.depends_on.keys() for name, each in self.services.items()}
        try:
            return [*TopologicalSorter(graph).static_order()]
        except CycleError as error:
            circle = " -> ".join(error.args[1])
            raise ValueError(
                f"services: depends_on leads back to where it began: {circle}; remove one of them"
            ) from None

    async def interpret(self, inventory: Inventory, topology: ComposeHost) -> Outcome:
        parts: list[Score[ComposeHost]] = [*self.networks, *self.volumes, *self.files]
        made = await asyncio.gather(
            *(_attempt(each.interpret(inventory, topology)) for each in parts)
        )
        start = _Start(self.services, topology.containers)
        async with asyncio.TaskGroup() as group:
            for name in self._order():
                start.under_way[name] = group.create_task(start.bring_up(name))
        if start.waiting:
            first = self.services[next(iter(start.waiting))]
            told = (f"{name} waits for {why}" for name, why in start.waiting.items())
            raise NotReady("; ".join(told), resource=first.container.id, look_again_s=_LOOK_AGAIN_S)
        stands = [each.result() for each in start.under_way.values()]
        changes = [each.changes for each in stands if each.changes is not None]
        return outcome_of(*changes, *(each for each in made if each is not None))


def _find_problem(other: ComposeService | None, condition: Condition) -> str:
    """Return why *other* can never reach that state; empty when it can."""
    if other is None:
        return "is no service of this project; correct the name, or remove it"
    if condition == "service_completed_successfully" and other.runs != "once":
        return "never ends; write runs: once there, or another condition"
    if condition == "service_healthy" and other.healthcheck is None and other.ready is None:
        return "has no healthcheck and no ready; add one there, or write service_started"
    return ""


async def _attempt(work: Awaitable[Outcome]) -> Outcome | None:
    """Return the result of *work*; None where it failed, which the Stage remembers and reports."""
    try:
        return await work
    except Exception:  # noqa: BLE001 - the Stage tells it, whatever it is, and the rest goes on
        return None


@attrs.frozen(kw_only=True)
class _Stand:
    """How far a service is."""

    changes: Changes | None = None
    """Set where it is in order."""
    is_waiting: bool = False
    has_failed: bool = False

    @property
    def is_in_order(self) -> bool:
        return self.changes is not None


@attrs.frozen
class _Start:
    """Services on their way up, side by side as far as they do not wait for each other."""

    services: Mapping[str, ComposeService]
    containers: ContainerRuntime
    under_way: dict[str, asyncio.Task[_Stand]] = attrs.field(
        factory=dict[str, "asyncio.Task[_Stand]"]
    )
    waiting: dict[str, str] = attrs.field(factory=dict[str, str])
    """Why, by the service that waits."""

    async def bring_up(self, name: str) -> _Stand:
        """Start the service *name*, once those that it depends on are ready for it. Raise no error."""
        service = self.services[name]
        for other, dependency in service.depends_on.items():
            stand = await self.under_way[other]
            if not await self._is_met(other, dependency, stand):
                self.waiting[name] = f"{other} {_SO_FAR[dependency.condition]}"
                return _Stand(is_waiting=True)
        try:
            return _Stand(changes=await self.containers.ensure(service.container))
        except NotReady:
            return _Stand()
        except Exception:  # noqa: BLE001 - the Stage tells it, whatever it is, and the others go on
            return _Stand(has_failed=True)

    async def _is_met(self, other: str, dependency: ComposeDependency, stand: _Stand) -> bool:
        if stand.is_waiting:
            return False
        if stand.has_failed and not dependency.required:
            return True
        match dependency.condition:
            case "service_healthy":
                return stand.is_in_order
            case "service_completed_successfully":
                return any(isinstance(each.after, Completed) for each in stand.changes or ())
            case "service_started":
                return stand.is_in_order or await self._is_started(other)

    async def _is_started(self, name: str) -> bool:
        """Return whether a service that is not in order runs all the same: it settles, may become healthy, or
        is not healthy."""
        try:
            state = await self.containers.observe(self.services[name].name)
        except Exception:  # noqa: BLE001 - the Stage tells it
            return False
        return isinstance(state, Running | Completed)

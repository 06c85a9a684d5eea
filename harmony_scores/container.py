"""ContainerScore: one container."""

from __future__ import annotations

from harmony_core import Container, HasContainers, Inventory, Outcome, Score, outcome_of
from harmony_core.resources import ContainerFields

__all__ = ["ContainerScore"]


class ContainerScore(ContainerFields, Score[HasContainers]):
    """A container of this name runs this image in this way, and starts again with the device.

    It is made anew when anything of this changes, or a file that it ``uses``; else it is left alone.
    """

    async def interpret(self, inventory: Inventory, topology: HasContainers) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.containers.ensure(self._container()))

    def _container(self) -> Container:
        return Container(**{name: getattr(self, name) for name in type(self).model_fields})

"""ContainerNetworkScore: one network between containers."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from harmony_core import (
    ContainerNetwork,
    HasContainerNetworks,
    Inventory,
    Outcome,
    Score,
    outcome_of,
)
from harmony_core.resources import ContainerNetworkName, ObjectLabels

from ._whole import refused_as_fields

__all__ = ["ContainerNetworkScore"]


class ContainerNetworkScore(Score[HasContainerNetworks]):
    """A network on which containers find each other by name. They name it in their ``networks``.

    When anything of it changes, it is made anew, and so are the containers on it.
    """

    name: ContainerNetworkName = Field(description="The network's name, the only one of that name.")
    subnets: tuple[str, ...] = Field(
        default=(),
        description="Its subnets, as in 10.90.0.0/24; podman chooses one that is free unless set.",
    )
    internal: bool = Field(
        default=False, description="Whether containers on it reach each other alone."
    )
    ipv6: bool = Field(default=False, description="Whether it has IPv6, too.")
    labels: ObjectLabels = Field(
        default_factory=dict, description="Labels that it is made with; none begins with harmony."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        with refused_as_fields():
            self._network()
        return self

    async def interpret(self, inventory: Inventory, topology: HasContainerNetworks) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.container_networks.ensure(self._network()))

    def _network(self) -> ContainerNetwork:
        return ContainerNetwork(**{name: getattr(self, name) for name in type(self).model_fields})

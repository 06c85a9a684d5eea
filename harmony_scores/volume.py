"""VolumeScore: one volume."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from harmony_core import HasVolumes, Inventory, Outcome, Score, Volume, outcome_of
from harmony_core.resources import ObjectLabels, VolumeName

from ._whole import refused_as_fields

__all__ = ["VolumeScore"]


class VolumeScore(Score[HasVolumes]):
    """There is a volume of this name, which containers see by naming it in their ``volumes``.

    Its data outlives the containers, and this Score too: removing it leaves the volume on the device, and
    says so. With ``delete_data`` it deletes the data, once that is approved.
    """

    name: VolumeName = Field(description="The volume's name, the only one of that name.")
    labels: ObjectLabels = Field(
        default_factory=dict,
        description="Labels that it is made with, which stay as they are; none begins with harmony.",
    )
    delete_data: bool = Field(
        default=False,
        description="Whether the data goes when no Score wants it any more, after harmony approve.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        with refused_as_fields():
            self._volume()
        return self

    async def interpret(self, inventory: Inventory, topology: HasVolumes) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.volumes.ensure(self._volume()))

    def _volume(self) -> Volume:
        return Volume(name=self.name, labels=self.labels, delete_data=self.delete_data)

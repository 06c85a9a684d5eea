"""MountScore: a file system that is mounted, now and at every boot."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from harmony_core import HasMounts, Inventory, MountPoint, Outcome, Score, outcome_of
from harmony_core.paths import AbsolutePath
from harmony_core.resources import FileSystemType, MountOption, MountSource

from ._whole import refused_as_fields

__all__ = ["MountScore"]


class MountScore(Score[HasMounts]):
    """``what`` is mounted at ``where``, with these options, and looked at in the kernel's own table.

    A disk that is not there is a failure that says so; it is mounted by itself as soon as it is plugged in.
    Nothing is mounted over a directory with files in it unless ``over_files`` says so. Removed, it is
    unmounted, and no data is deleted; where somebody uses it that is a failure, which names the processes.
    """

    what: MountSource = Field(
        description="What is mounted: UUID=…, LABEL=…, PARTUUID=…, a path, host:/path, //server/share, tmpfs."
    )
    where: AbsolutePath = Field(
        description="Where: a directory, made where there is none, without links on the way."
    )
    type: FileSystemType = Field(
        default="auto",
        description="The file system's type, as in ext4, vfat, nfs, cifs, tmpfs; none with bind.",
    )
    options: tuple[MountOption, ...] = Field(
        default=(), description="Options, as in fstab: noatime, ro, nosuid, uid=1000, bind."
    )
    at_boot: bool = Field(default=True, description="Whether it is mounted at every boot.")
    nofail: bool = Field(
        default=True,
        description="Whether the device boots without it, too; else it stops in the emergency mode.",
    )
    automount: bool = Field(
        default=False, description="Whether it is mounted when somebody first looks into it."
    )
    over_files: bool = Field(
        default=False,
        description="Whether a directory with files in it is mounted over, which hides them.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        with refused_as_fields():
            self._mount_point()
        return self

    async def interpret(self, inventory: Inventory, topology: HasMounts) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.mounts.ensure(self._mount_point()))

    def _mount_point(self) -> MountPoint:
        return MountPoint(
            what=self.what,
            where=self.where,
            type=self.type,
            options=self.options,
            at_boot=self.at_boot,
            nofail=self.nofail,
            automount=self.automount,
            over_files=self.over_files,
        )

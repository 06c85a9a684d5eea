"""DirectoryScore: one directory."""

from __future__ import annotations

from pydantic import Field

from harmony_core import Directory, HasDirectories, Inventory, Outcome, Score, outcome_of
from harmony_core.paths import AbsolutePath
from harmony_core.resources import UserName

from .file import OctalMode

__all__ = ["DirectoryScore"]


class DirectoryScore(Score[HasDirectories]):
    """There is a directory at ``path`` with this mode and owner, whatever is in it.

    One that is there already is taken over, and gets its mode and owner back in the end. One that Harmony
    made goes when the Score is removed and nothing is left in it.
    """

    path: AbsolutePath = Field(description="Where: an absolute path, without links on the way.")
    mode: OctalMode = Field(
        default=0o755,
        description='Permissions in octal: "0755" unless set.',
        json_schema_extra={"default": "0755"},
    )
    owner: UserName = Field(default="root", description="The user that owns it.")
    group: UserName = Field(default="root", description="The group that it belongs to.")

    async def interpret(self, inventory: Inventory, topology: HasDirectories) -> Outcome:  # noqa: ARG002
        wish = Directory(path=self.path, mode=self.mode, owner=self.owner, group=self.group)
        return outcome_of(await topology.directories.ensure(wish))

"""DirectoryScore: one directory."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from harmony_core import Directory, HasDirectories, Inventory, Outcome, Score, outcome_of
from harmony_core.paths import AbsolutePath
from harmony_core.resources import DirectoryMode, UserName

from .file import octal_mode

__all__ = ["DirectoryScore", "OctalDirectoryMode"]

OctalDirectoryMode = Annotated[
    DirectoryMode,
    BeforeValidator(octal_mode(digits=4)),
    PlainSerializer(lambda mode: f"{mode:04o}", return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": "^[0-3]?[0-7]{3}$", "examples": ["0755", "2775"]}),
]
"""``"0755"``, ``"2775"`` or ``"1777"`` in YAML and JSON, also 0o2775 in Python."""


class DirectoryScore(Score[HasDirectories]):
    """There is a directory at ``path`` with this mode and owner, whatever is in it.

    One that is there already is taken over, and gets its mode and owner back in the end. One that Harmony
    made goes when the Score is removed and nothing is left in it.
    """

    path: AbsolutePath = Field(description="Where: an absolute path, without links on the way.")
    mode: OctalDirectoryMode = Field(
        default=0o755,
        description='Permissions in octal: "0755" unless set; "2775" with set-group-id, "1777" with sticky.',
        json_schema_extra={"default": "0755"},
    )
    owner: UserName = Field(default="root", description="The user that owns it.")
    group: UserName = Field(default="root", description="The group that it belongs to.")

    async def interpret(self, inventory: Inventory, topology: HasDirectories) -> Outcome:  # noqa: ARG002
        wish = Directory(path=self.path, mode=self.mode, owner=self.owner, group=self.group)
        return outcome_of(await topology.directories.ensure(wish))

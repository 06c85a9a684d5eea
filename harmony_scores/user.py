"""UserScore: a system user, and the groups that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Protocol

from pydantic import Field, StringConstraints

from harmony_core import (
    File,
    HasFiles,
    HasSystemd,
    Inventory,
    Outcome,
    Score,
    SystemdUnit,
    outcome_of,
)
from harmony_core.paths import AbsolutePath

from ._unit_file import PlainPath, oneshot

__all__ = ["UserScore"]

_PROGRAM = "/usr/bin/systemd-sysusers"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,30}$")]
Words = Annotated[str, StringConstraints(pattern=r'^[^\x00-\x1f\x7f:"\\]*$', max_length=128)]


class HasUsers(HasFiles, HasSystemd, Protocol):
    """What it takes to make users."""


class UserScore(Score[HasUsers]):
    """There is a user ``name`` with a group of its own, locked for logging in with a password.

    Made by systemd-sysusers, which changes no user that is there already. When the Score is removed the user
    stays: files may belong to it, and its number must not be given to somebody else.
    """

    name: Name = Field(description="The user's name.")
    uid: Annotated[int, Field(ge=1, le=60_000)] | None = Field(
        default=None, description="Its number; a free one below 1000 unless set."
    )
    description: Words = Field(default="", description="Who or what it is, for people.")
    home: AbsolutePath | None = Field(default=None, description="Its home; / unless set. Not made.")
    shell: PlainPath | None = Field(default=None, description="Its shell; nologin unless set.")
    groups: tuple[Name, ...] = Field(
        default=(), description="Groups that it belongs to, too; made where they are missing."
    )

    async def interpret(self, inventory: Inventory, topology: HasUsers) -> Outcome:  # noqa: ARG002
        path = f"/etc/sysusers.d/harmony-{self.name}.conf"
        content = "".join(f"{line}\n" for line in self._lines())
        written = await topology.files.ensure(File(path=path, content=content.encode()))
        unit = SystemdUnit(
            name=f"harmony-user-{self.name}.service",
            content=oneshot(f"The user {self.name}", (_PROGRAM, path)),
            enabled=None,
            uses=(path,),
        )
        return outcome_of(written + await topology.systemd.ensure(unit))

    def _lines(self) -> Iterator[str]:
        number = "-" if self.uid is None else str(self.uid)
        home = "-" if self.home is None else f'"{self.home}"'
        yield f'u {self.name} {number} "{self.description.replace("%", "%%")}" {home} {self.shell or "-"}'
        for group in self.groups:
            yield f"m {self.name} {group}"

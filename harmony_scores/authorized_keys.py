"""AuthorizedKeysScore: who may log in as a user, by their ssh keys."""

from __future__ import annotations

from typing import Annotated, Protocol, Self

from pydantic import Field, model_validator

from harmony_core import (
    Block,
    Directory,
    File,
    HasBlocks,
    HasDirectories,
    HasFiles,
    Inventory,
    Outcome,
    Score,
    outcome_of,
)
from harmony_core.errors import UnsafePath
from harmony_core.paths import AbsolutePath
from harmony_core.resources import BlockLines, BlockName, PresentAt

from ._ssh_keys import check_line, key_in
from ._whole import refused_as_fields
from .user import Name

__all__ = ["AuthorizedKeysScore"]

_OTHERS_MAY_WRITE = 0o022


class HasHomes(HasFiles, HasDirectories, HasBlocks, Protocol):
    """What it takes to write into somebody's home."""


class AuthorizedKeysScore(Score[HasHomes]):
    """Whoever has one of these ``authorized_keys`` of ssh may log in as ``user``.

    They stand in ~/.ssh/authorized_keys, between two markers; other lines stay, unless the keys are
    ``exclusive``. Directory and file are made for the user alone (0700, 0600). What sshd would not trust,
    such as a home that others may write, is a failure that says what to run. Removed, only these lines go.
    """

    user: Name = Field(description="The user: one that is there, or a UserScore's.")
    authorized_keys: Annotated[
        tuple[Annotated[str, Field(max_length=16 * 1024)], ...], Field(min_length=1)
    ] = Field(
        description="Public keys, each as the line in the file that ends in .pub; options before it, as "
        'in restrict,command="/usr/bin/backup".'
    )
    exclusive: bool = Field(
        default=False,
        description="Whether these keys alone count: all else that is in the file is taken out.",
    )
    home: AbsolutePath | None = Field(
        default=None, description="The user's home; /home/USER unless set, and /root of root."
    )
    group: Name | None = Field(
        default=None, description="The group of ~/.ssh; the one with the user's name unless set."
    )
    name: BlockName = Field(
        default="keys",
        description="What the markers are named by, where several Scores have keys of one user.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        seen: dict[str, int] = {}
        for number, line in enumerate(self.authorized_keys, start=1):
            try:
                check_line(line)
            except ValueError as error:  # said here, where what was given is not told with it
                raise ValueError(f"authorized_keys: number {number} {error}") from None
            if (other := seen.setdefault(key_in(line), number)) != number:
                raise ValueError(
                    f"authorized_keys: numbers {other} and {number} are one key; leave out one"
                )
        with refused_as_fields():
            self._directory()
            self._block()
        return self

    async def interpret(self, inventory: Inventory, topology: HasHomes) -> Outcome:  # noqa: ARG002
        changes = await topology.directories.ensure(self._directory())
        if self.exclusive:
            return outcome_of(changes + await topology.files.ensure(self._file()))
        changes += await topology.blocks.ensure(self._block())
        self._refuse_untrusted(await topology.files.observe(self._path))
        return outcome_of(changes)

    def _refuse_untrusted(self, found: object) -> None:
        """Raise where sshd would not read the file, which had its mode and owner before us."""
        if not isinstance(found, PresentAt):
            return
        if found.owner not in {self.user, "root"} or int(found.mode, 8) & _OTHERS_MAY_WRITE:
            raise UnsafePath(
                f"{self._path} belongs to {found.owner} and has mode {found.mode}, so sshd does not trust "
                f"it; run: chown {self.user} {self._path} && chmod 600 {self._path}"
            )

    @property
    def _home(self) -> str:
        return self.home or ("/root" if self.user == "root" else f"/home/{self.user}")

    @property
    def _path(self) -> str:
        return f"{self._home}/.ssh/authorized_keys"

    def _directory(self) -> Directory:
        return Directory(
            path=f"{self._home}/.ssh",
            mode=0o700,
            owner=self.user,
            group=self.group or self.user,
            in_home_of=self.user,
        )

    def _block(self) -> Block:
        lines = BlockLines(name=self.name, text="\n".join(self.authorized_keys))
        return Block(path=self._path, part=lines, made_for=self.user)

    def _file(self) -> File:
        return File(
            path=self._path,
            content="".join(f"{line}\n" for line in self.authorized_keys).encode(),
            mode=0o600,
            owner=self.user,
            group=self.group or self.user,
        )

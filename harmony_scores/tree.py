"""TreeScore: a directory, with all that is in it.

    its directories, those above first -> its files, together -> its links

A directory that is there, and is not as it would be made, is somebody's, such as a home: it is looked at, and
stays as it is, unless ``directory_mode`` says how all are to be.

Each is a resource of its own: what differs is told by name, put right by itself, and goes once the tree has
it no more.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import PurePosixPath
from typing import Protocol, Self

from pydantic import Field, model_validator

from harmony_core import (
    Directory,
    File,
    HasDirectories,
    HasFiles,
    HasLinks,
    Inventory,
    Outcome,
    Score,
    SymbolicLink,
    outcome_of,
)
from harmony_core.paths import AbsolutePath
from harmony_core.resources import DirectoryAt, UserName
from harmony_core.secret_values import find_words
from harmony_core.trees import Tree, TreeEntry, find_directories

from ._whole import refused_as_fields
from .directory import OctalDirectoryMode
from .file import OctalMode

__all__ = ["TreeHost", "TreeScore"]

_READ_BY_ALL = 0o644
_NOT_BY_OTHERS = 0o770


class TreeHost(HasFiles, HasDirectories, HasLinks, Protocol):
    """A host that keeps files, directories and symbolic links."""


class TreeScore(Score[TreeHost]):
    """In the directory ``path`` are these ``files``, with their directories and links.

    In YAML, `files_from` names a directory beside the Score file that has them. What is no longer among them
    goes, and what others have put there stays; so do mode and owner of directories that are there already,
    unless ``directory_mode`` is set. A link that leads somewhere is a link on the device, too.
    """

    path: AbsolutePath = Field(description="Where: an absolute path, without links on the way.")
    files: Tree = Field(
        min_length=1,
        description="What is in it, by its path from there on: each has content, content_base64, asset, link "
        "or `directory: true`, and a program `executable: true`. `files_from: ./DIRECTORY` lists what is in "
        "a directory beside the Score file.",
    )
    mode: OctalMode | None = Field(
        default=None,
        description='Permissions of its files in octal: "0644" unless set, and "0600" with a secret. A '
        "program can be run by whoever can read it.",
    )
    directory_mode: OctalDirectoryMode | None = Field(
        default=None,
        description="Permissions of all its directories, also those that are there already, which have its "
        "owner and group then, too. Unless set, these stay as they are, and new ones are as for a program.",
    )
    owner: UserName = Field(
        default="root",
        description="The user that owns all of it, but for directories that are there already.",
    )
    group: UserName = Field(default="root", description="The group, likewise.")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        for above in sorted(find_directories(self.files)):
            if (entry := self.files.get(above)) is not None and not entry.directory:
                below = next(each for each in self.files if each.startswith(f"{above}/"))
                raise ValueError(
                    f"files: {above} is a {'file' if entry.is_file else 'link'}, and {below} lies below it; "
                    "rename one of them"
                )
        with refused_as_fields():
            _ = self._directories, self._files, self._links
        return self

    async def interpret(self, inventory: Inventory, topology: TreeHost) -> Outcome:  # noqa: ARG002
        return outcome_of(
            await topology.directories.ensure(*await self._find_ours(topology)),
            await topology.files.ensure(*self._files),
            await topology.links.ensure(*self._links),
        )

    async def _find_ours(self, topology: TreeHost) -> list[Directory]:
        """Return its directories without those that belong to somebody else."""
        if self.directory_mode is not None:
            return [*self._directories]
        there, ours = {PurePosixPath(self.path).parent}, list[Directory]()
        for each in self._directories:
            path = PurePosixPath(each.path)
            # Nothing is looked for below what is no directory yet: that may be a file, which makes way.
            found = await topology.directories.observe(each.path) if path.parent in there else None
            if isinstance(found, DirectoryAt):
                there.add(path)
                if found != DirectoryAt(
                    mode=f"{each.mode:04o}", owner=each.owner, group=each.group
                ):
                    continue
            ours.append(each)
        return ours

    @cached_property
    def _directories(self) -> tuple[Directory, ...]:
        empty = {path for path, each in self.files.items() if each.directory}
        inside = sorted({*find_directories(self.files), *empty})
        mode = self.directory_mode
        if mode is None:
            mode = _make_executable(_READ_BY_ALL if self.mode is None else self.mode)
        return tuple(
            Directory(path=path, mode=mode, owner=self.owner, group=self.group)
            for path in (self.path, *(f"{self.path}/{each}" for each in inside))
        )

    @cached_property
    def _files(self) -> tuple[File, ...]:
        return tuple(
            self._make_file(path, each) for path, each in self.files.items() if each.is_file
        )

    @cached_property
    def _links(self) -> tuple[SymbolicLink, ...]:
        return tuple(
            SymbolicLink(path=f"{self.path}/{path}", target=each.link)
            for path, each in self.files.items()
            if each.link is not None
        )

    def _make_file(self, path: str, entry: TreeEntry) -> File:
        content = entry.asset or entry.content_base64 or (entry.content or "").encode()
        mode = _READ_BY_ALL if self.mode is None else self.mode
        if isinstance(content, bytes) and find_words(content):
            mode = 0o600 if self.mode is None else mode & _NOT_BY_OTHERS
        return File(
            path=f"{self.path}/{path}",
            content=content,
            mode=_make_executable(mode) if entry.executable else mode,
            owner=self.owner,
            group=self.group,
        )


def _make_executable(mode: int) -> int:
    """Return *mode*, with the right to run or enter it, for everybody who may read it."""
    return mode | (mode & 0o444) >> 2

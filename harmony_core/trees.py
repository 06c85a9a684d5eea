"""Trees: what a directory has in it, as a field of a Score.

::

    files: Tree            # in YAML also  files_from: ./nginx

``{"nginx.conf": {content: …}, "bin/start": {content: …, executable: true}, "now": {link: data}}``: by its
path from the tree's own directory. The directories above an entry need not be listed; one with nothing in it
is.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated, Self, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from .content import Base64, Text
from .errors import UnsafePath
from .paths import check_path
from .resources import Asset, LinkTarget
from .spec import Spec

__all__ = ["Tree", "TreeEntry", "TreePath", "find_directories"]


def _check(path: str) -> str:
    if path.startswith("/"):
        raise ValueError("write it from the tree's own directory, as in conf.d/site.conf")
    try:
        check_path(f"/{path}")
    except UnsafePath as error:
        raise ValueError(error.message) from error
    return path


TreePath = Annotated[str, AfterValidator(_check)]
"""A path from the tree's own directory on, such as ``conf.d/site.conf``."""


def _is_unset(value: object) -> bool:
    return value is None or value is False


class TreeEntry(Spec):
    """One thing in a tree: a file, a symbolic link, or a directory with nothing in it."""

    content: Text | None = Field(
        default=None, exclude_if=_is_unset, description="A file's content, as text."
    )
    content_base64: Base64 | None = Field(
        default=None, exclude_if=_is_unset, description="A file's content, in base64."
    )
    asset: Asset | None = Field(
        default=None,
        exclude_if=_is_unset,
        description="A file's content, by its hash, for what is too large for a manifest.",
    )
    executable: bool = Field(
        default=False, exclude_if=_is_unset, description="Whether the file is a program."
    )
    link: LinkTarget | None = Field(
        default=None,
        exclude_if=_is_unset,
        description="What a symbolic link leads to, from its own directory.",
    )
    directory: bool = Field(
        default=False, exclude_if=_is_unset, description="Whether it is a directory."
    )

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        given = [self.content, self.content_base64, self.asset, self.link, self.directory or None]
        if sum(each is not None for each in given) != 1:
            raise ValueError(
                "give exactly one of content, content_base64, asset, link and directory"
            )
        if self.executable and not self.is_file:
            raise ValueError("executable is for a file; remove it")
        return self

    @property
    def is_file(self) -> bool:
        """Whether it is a file."""
        return self.link is None and not self.directory


Tree: TypeAlias = dict[TreePath, TreeEntry]


def find_directories(paths: Iterable[str]) -> set[str]:
    """Return the directories above *paths*, without the tree's own."""
    return {str(above) for path in paths for above in PurePosixPath(path).parents[:-1]}

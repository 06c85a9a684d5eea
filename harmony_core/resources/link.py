"""A symbolic link: a path that leads to another."""

from __future__ import annotations

from typing import Annotated, ClassVar

import attrs
from pydantic import AfterValidator

from harmony_core.paths import PATH_MAX_BYTES

from ._at_path import ResourceAtPath
from ._base import State

__all__ = ["LinkAt", "LinkState", "LinkTarget", "NotALink", "SymbolicLink"]


def _plain(target: str) -> str:
    if not target or not target.isprintable():
        raise ValueError("write a path, absolute or from the link's directory, as in ../data")
    try:
        size_bytes = len(target.encode())
    except UnicodeEncodeError:
        raise ValueError("has half a character (a lone surrogate); remove it") from None
    if size_bytes > PATH_MAX_BYTES:
        raise ValueError(f"longer than {PATH_MAX_BYTES} bytes; shorten it")
    return target


LinkTarget = Annotated[str, AfterValidator(_plain)]
"""What a link leads to: a path, absolute or from the link's own directory. It need not be there."""


class SymbolicLink(ResourceAtPath):
    """At *path* is a symbolic link to *target*, whatever is there, or is not.

    Parent directories that are missing are made (0755, root). A link that is there already is taken over:
    what it led to is kept, and comes back when the Score goes, unless somebody else changed it since. A file
    or a directory at *path* is refused and left.
    """

    resource_type: ClassVar[str] = "link"

    target: LinkTarget
    """What it leads to: an absolute path, or one from its own directory."""


@attrs.frozen(kw_only=True)
class LinkAt(State):
    """A symbolic link is there, and leads to ``target``."""

    target: str

    @property
    def is_ready(self) -> bool:
        return True


@attrs.frozen(kw_only=True)
class NotALink(State):
    """Something else is there: a file, a directory, a device."""

    kind: str


LinkState = LinkAt | NotALink

"""A regular file with content, mode and owner."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, ClassVar, Self

import attrs
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from harmony_core.secret_values import find_words

from ._at_path import ResourceAtPath
from ._base import State, in_words
from .asset import Asset
from .download import Download

__all__ = [
    "File",
    "FileMode",
    "FileState",
    "NotAFile",
    "PresentAt",
    "SecretName",
    "SecretRef",
    "UserName",
]

_OTHERS = 0o007

FileMode = Annotated[int, Field(ge=0, le=0o777)]
"""Permission bits only: set-user-id, set-group-id and sticky are refused."""

UserName = Annotated[
    str,
    StringConstraints(pattern=r"^([a-z_][a-z0-9_-]{0,31}|[0-9]{1,9})$"),
    in_words("write a user's or group's name, or its number in quotes, as in www-data"),
]
"""A user's or group's name, or its number in decimal."""


SecretName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$"),
    in_words("write a file's name of lower-case letters, digits and ._-, as in mail.password"),
]
"""The name of a file in the agent's secrets directory."""


class SecretRef(BaseModel):
    """Names a secret that is on the device already, a 0600 file in the agent's secrets directory.

    Its content never crosses the wire and is never shown: not in a diff, an Outcome or a log.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    secret: SecretName
    """The file's name in the secrets directory."""


class File(ResourceAtPath):
    """The file at *path* has exactly this content, mode, owner and group.

    Parent directories that are missing are made (0755, root). A symbolic link, directory or device at
    *path*, or a link on the way to it, is refused and left as it is.

    A file that is there already is taken over: what it was is kept, and comes back when the Score goes,
    unless somebody else changed it since.
    """

    resource_type: ClassVar[str] = "file"
    secret_fields: ClassVar[frozenset[str]] = frozenset({"content"})

    content: bytes | SecretRef | Asset | Download
    """What is in it, or the secret, the asset or the download whose content it is."""
    mode: FileMode = 0o644
    """Its permission bits."""
    owner: UserName = "root"
    """The user it belongs to, by name or number."""
    group: UserName = "root"
    """The group it belongs to, by name or number."""
    discard_previous: bool = False
    """Keep nothing of a file that is there already: it is as if we had made it. Needed above 1 MiB."""

    @cached_property
    def has_secret(self) -> bool:
        """Whether its content is a secret, or has one in it: then nothing of it is ever shown."""
        return isinstance(self.content, SecretRef) or bool(self.find_secret_words())

    @property
    def needs_preparing(self) -> bool:
        return isinstance(self.content, Asset | Download)

    def find_secret_words(self) -> frozenset[str]:
        return find_words(self.content) if isinstance(self.content, bytes) else frozenset()

    @model_validator(mode="after")
    def _is_not_for_all(self) -> Self:
        if not isinstance(self.content, SecretRef) and self.has_secret and self.mode & _OTHERS:
            raise ValueError(
                f'mode: by "{self.mode:04o}" all could read or change the secret in {self.path}; leave it '
                'out, which makes it "0600", or let a group read it: "0640"'
            )
        return self


@attrs.frozen(kw_only=True)
class PresentAt(State):
    """A regular file is there. ``mode`` is octal text ("0644").

    ``sha256`` is of its whole content. Of a secret it is empty: a short one could be guessed from it. Of a
    file that is too large to be read at every look it is empty, too. ``size_bytes`` is None only where a file
    is yet to be downloaded, and nobody has said how large it is.
    """

    sha256: str
    mode: str
    size_bytes: int | None
    owner: str
    group: str

    @property
    def is_ready(self) -> bool:
        return True


@attrs.frozen(kw_only=True)
class NotAFile(State):
    """Something else is there: a directory, a symbolic link, a device."""

    kind: str


FileState = PresentAt | NotAFile

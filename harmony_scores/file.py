"""FileScore: one file."""

from __future__ import annotations

import base64
import binascii
import re
from functools import cached_property
from typing import Annotated, Self

from pydantic import (
    BeforeValidator,
    EncodedBytes,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from harmony_core import File, HasFiles, Inventory, Outcome, Score, SecretRef, outcome_of
from harmony_core.paths import AbsolutePath
from harmony_core.resources import FileMode, SecretName, UserName

from ._text import Text

__all__ = ["FileScore", "OctalMode"]

_OCTAL_READ_AS_DECIMAL = frozenset({400, 440, 444, 500})
"""What YAML makes of 0400 and the like; other modes that people mean are out of range then."""


def _mode(value: object) -> int:
    """``"0644"`` and 0o644 are the same; what was meant as octal and read as decimal is refused."""
    match value:
        case str() if re.fullmatch("0?[0-7]{3}|0o[0-7]{3}", value):
            return int(value.removeprefix("0o"), 8)
        case bool() | str():
            pass
        case int() if value in _OCTAL_READ_AS_DECIMAL:
            raise ValueError(
                f'{value} in decimal is {value:04o} in octal; put it in quotes, as in "{value:04}"'
            )
        case int() if value in range(0o1000):
            return value
        case _:
            pass
    raise ValueError('must be three or four octal digits in quotes, as in "0644"')


OctalMode = Annotated[
    FileMode,
    BeforeValidator(_mode),
    PlainSerializer(lambda mode: f"{mode:04o}", return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": "^0?[0-7]{3}$", "examples": ["0644"]}),
]
"""Permission bits: ``"0644"`` in YAML and JSON, also 0o644 in Python."""


class _StrictBase64:
    """Standard alphabet, padded, nothing between the characters."""

    @classmethod
    def decode(cls, data: bytes) -> bytes:
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise ValueError(f"not base64: {error}") from error

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return base64.b64encode(value)

    @classmethod
    def get_json_format(cls) -> str:
        return "base64"


class FileScore(Score[HasFiles]):
    """The file at ``path`` has exactly this content, mode and owner.

    A file that was there before is taken over; one that Harmony made goes when the Score is removed.
    """

    path: AbsolutePath = Field(description="Where: an absolute path, without links on the way.")
    content: Text | None = Field(default=None, description="The content, as text.")
    content_base64: Annotated[bytes, EncodedBytes(encoder=_StrictBase64)] | None = Field(
        default=None, description="The content, in base64, for what is not text."
    )
    secret: SecretName | None = Field(
        default=None,
        description="The content, by the name of a file in the device's own secrets directory.",
    )
    mode: OctalMode | None = Field(
        default=None,
        description='Permissions in octal: "0644" unless set, and "0600" for a secret.',
    )
    owner: UserName = Field(default="root", description="The user that owns it.")
    group: UserName = Field(default="root", description="The group that it belongs to.")

    @model_validator(mode="after")
    def _has_one_content(self) -> Self:
        given = [self.content, self.content_base64, self.secret]
        if sum(each is not None for each in given) != 1:
            raise ValueError("give exactly one of content, content_base64 and secret")
        return self

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.files.ensure(self._file))

    @cached_property
    def _file(self) -> File:
        mode = self.mode if self.mode is not None else 0o600 if self.secret else 0o644
        return File(
            path=self.path, content=self._content(), mode=mode, owner=self.owner, group=self.group
        )

    def _content(self) -> bytes | SecretRef:
        if self.secret is not None:
            return SecretRef(secret=self.secret)
        if self.content_base64 is not None:
            return self.content_base64
        return (self.content or "").encode()

"""FileScore: one file."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from harmony_core import File, HasFiles, Inventory, Outcome, Score, SecretRef, outcome_of
from harmony_core.content import Base64, Text
from harmony_core.paths import AbsolutePath
from harmony_core.resources import Asset, Download, FileMode, SecretName, UserName
from harmony_core.secret_values import find_words

__all__ = ["FileScore", "OctalMode", "octal_mode"]

_OCTAL_READ_AS_DECIMAL = frozenset({400, 500})
"""What YAML makes of 0400 and 0500, though it were a mode that somebody might mean."""


def octal_mode(*, digits: Literal[3, 4]) -> Callable[[object], int]:
    """Return a validator of modes of so many octal *digits*: a file has three, a directory may have four.

    ``"0644"`` and 0o644 are the same; one that was meant as octal and read as decimal is refused.
    """
    first = "0?" if digits == 3 else "[0-7]?"
    text, most = re.compile(f"{first}[0-7]{{3}}|0o{first}[0-7]{{3}}"), 8**digits

    def read(value: object) -> int:
        match value:
            case str() if text.fullmatch(value):
                return int(value.removeprefix("0o"), 8)
            case bool() | str():
                pass
            case int() if value in range(most) and _is_read_as_decimal(value):
                raise ValueError(
                    f'{value} in decimal is {value:04o} in octal; put it in quotes, as in "{value:04}"'
                )
            case int() if value in range(most):
                return value
            case _:
                pass
        raise ValueError('must be three or four octal digits in quotes, as in "0644"')

    return read


def _is_read_as_decimal(value: int) -> bool:
    """Return whether somebody has written these digits as octal ones: as octal they are a usual mode, and
    *value* itself is none."""
    if value in _OCTAL_READ_AS_DECIMAL:
        return True
    is_octal = set(str(value)) <= set("01234567")
    return is_octal and _is_usual(int(str(value), 8)) and not _is_usual(value)


def _is_usual(mode: int) -> bool:
    """Return whether the owner may read, the group may no more than the owner, and others no more than the
    group."""
    owner, group, others = mode >> 6 & 7, mode >> 3 & 7, mode & 7
    return bool(owner & 4) and group | owner == owner and others | group == group


OctalMode = Annotated[
    FileMode,
    BeforeValidator(octal_mode(digits=3)),
    PlainSerializer(lambda mode: f"{mode:04o}", return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": "^0?[0-7]{3}$", "examples": ["0644"]}),
]
"""Permission bits: ``"0644"`` in YAML and JSON, also 0o644 in Python."""


class FileScore(Score[HasFiles]):
    """The file at ``path`` has exactly this content, mode and owner.

    A file that was there before is taken over; one that Harmony made goes when the Score is removed.
    """

    path: AbsolutePath = Field(description="Where: an absolute path, without links on the way.")
    content: Text | None = Field(default=None, description="The content, as text.")
    content_base64: Base64 | None = Field(
        default=None, description="The content, in base64, for what is not text."
    )
    secret: SecretName | None = Field(
        default=None,
        description="The content, by the name of a file in the device's own secrets directory.",
    )
    asset: Asset | None = Field(
        default=None,
        exclude_if=lambda given: given is None,
        description="The content, by its hash, for what is too large for a manifest: `content_from` or "
        "`asset_from` write it.",
    )
    download: Download | None = Field(
        default=None,
        exclude_if=lambda given: given is None,
        description="The content, by its `url` (https) and `sha256`, for the device to fetch itself; with "
        "`size_bytes`, room for it is looked for before.",
    )
    mode: OctalMode | None = Field(
        default=None,
        description='Permissions in octal: "0644" unless set, and "0600" for a secret.',
    )
    owner: UserName = Field(default="root", description="The user that owns it.")
    group: UserName = Field(default="root", description="The group that it belongs to.")

    @model_validator(mode="after")
    def _has_one_content(self) -> Self:
        given = [self.content, self.content_base64, self.secret, self.asset, self.download]
        if sum(each is not None for each in given) != 1:
            raise ValueError(
                "give exactly one of content, content_base64, secret, asset and download"
            )
        return self

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.files.ensure(self._file))

    @cached_property
    def _file(self) -> File:
        content = self._content()
        is_secret = isinstance(content, SecretRef) or (
            isinstance(content, bytes) and bool(find_words(content))
        )
        mode = self.mode if self.mode is not None else 0o600 if is_secret else 0o644
        return File(path=self.path, content=content, mode=mode, owner=self.owner, group=self.group)

    def _content(self) -> bytes | SecretRef | Asset | Download:
        if self.asset is not None:
            return self.asset
        if self.download is not None:
            return self.download
        if self.secret is not None:
            return SecretRef(secret=self.secret)
        if self.content_base64 is not None:
            return self.content_base64
        return (self.content or "").encode()

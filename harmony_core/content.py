"""Which fields of a Score hold what a file has: a Score file may name one beside it instead.

::

    page: Text                                # in YAML also  page_from: ./index.html
    icon: Base64
    script: Annotated[str, CONTENT_MARK]

What holds all that a directory has is in `harmony_core.trees`.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import attrs
from pydantic import AfterValidator, EncodedBytes

__all__ = ["CONTENT_MARK", "Base64", "Text", "WholeText"]


@attrs.frozen
class _ContentMark:
    """Marks such a field."""


CONTENT_MARK = _ContentMark()


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            "has half a character (a lone surrogate), which no file can hold as text"
        ) from None
    return text


WholeText = Annotated[str, AfterValidator(_encodable)]
"""Text without lone surrogates, of any length and any number of lines."""

Text = Annotated[WholeText, CONTENT_MARK]
"""The same, and a file may be named for it."""


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


Base64 = Annotated[bytes, EncodedBytes(encoder=_StrictBase64), CONTENT_MARK]
"""Bytes, written in base64."""

"""Text as a field of a Score: whatever can be written as UTF-8."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

__all__ = ["Text"]


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            "has half a character (a lone surrogate), which no file can hold as text"
        ) from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]
"""Text without lone surrogates, of any length and any number of lines."""

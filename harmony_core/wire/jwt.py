"""What a JWT of NATS' says of whom it lets in, and until when. Only the server verifies who has signed it."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, cast

import attrs

__all__ = ["Claims", "decode_jwt"]

_RENEWED_AFTER = 2 / 3
"""Of its life; the rest is for a device that cannot ask."""


@attrs.frozen
class Claims:
    """Whom a JWT lets in, and for how long."""

    subject: str
    """The public nkey."""
    issued_at_s: int
    expires_at_s: int | None
    """Both in seconds since 1970; None is for ever."""

    @classmethod
    def of(cls, text: str) -> Claims:
        """Return the content of *text*. Raise ValueError for what is no JWT."""
        found = decode_jwt(text)
        match found.get("sub"), found.get("iat"), found.get("exp"):
            case str(subject), int(issued_at_s), int() | None as expires_at_s:
                return cls(subject, issued_at_s, expires_at_s)
            case _:
                raise ValueError("this JWT does not say whom it lets in, or until when")

    def renewal_due_in_s(self, now_s: float) -> float | None:
        """Return in how many seconds a new one should be requested; None for one that does not expire.

        Return 0 where the clock was not set yet: then nobody here knows.
        """
        if self.expires_at_s is None:
            return None
        if now_s < self.issued_at_s:
            return 0.0
        life_s = self.expires_at_s - self.issued_at_s
        return max(0.0, self.issued_at_s + life_s * _RENEWED_AFTER - now_s)


def decode_jwt(text: str) -> dict[str, Any]:
    """Return the whole content of *text*. Raise ValueError for what is no JWT."""
    try:
        _, body, _ = text.split(".")
        found = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (binascii.Error, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("this is no JWT") from error
    if not isinstance(found, dict):
        raise ValueError("this is no JWT")  # noqa: TRY004 - whoever reads it cannot know its type
    return cast("dict[str, Any]", found)

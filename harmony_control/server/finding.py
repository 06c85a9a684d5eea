"""What a look at a server has found."""

from __future__ import annotations

from typing import Literal

import attrs

__all__ = ["Finding"]


@attrs.frozen
class Finding:
    """One thing that was looked at, or was not."""

    verdict: Literal["right", "wrong", "not looked at"]
    what: str
    detail: str = ""
    """What is wrong and what to do, or why it was not looked at."""

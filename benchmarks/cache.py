"""The directory of what is kept from run to run, outside of the project: peers, and room to measure in."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache"]


def cache() -> Path:
    """``$HARMONY_CACHE``, else ``~/.cache/harmony``."""
    path = Path(os.environ.get("HARMONY_CACHE") or Path.home() / ".cache" / "harmony")
    path.mkdir(parents=True, exist_ok=True)
    return path

"""How often the long tests repeat: in full for `make soak`, a tenth of it for `make test`."""

from __future__ import annotations

import os

__all__ = ["runs"]


def runs(stated: int) -> int:
    """*stated* with HARMONY_SOAK=1, else a tenth of it (at least 1). Prints how many of how many."""
    count = stated if os.environ.get("HARMONY_SOAK") == "1" else max(1, stated // 10)
    print(f"{count:,} of {stated:,} runs")
    return count

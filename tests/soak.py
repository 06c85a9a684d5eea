"""How often the long tests repeat: in full for `make soak`, a tenth of it for `make test`.

What was run of what is stated is told at the end of the test run (`tests/conftest.py`).
"""

from __future__ import annotations

import os
import random

__all__ = ["is_marked", "runs", "seed", "told"]

is_marked = False
"""Whether the test that runs now is marked soak: said by `tests/conftest.py`."""

told: list[str] = []
"""One line for each test that asked, in the order in which they did."""


def runs(stated: int) -> int:
    """*stated* with HARMONY_SOAK=1, else a tenth of it (at least 1). Only for tests that are marked soak."""
    assert is_marked, "a test that asks for runs is marked soak, or `make soak` would leave it out"
    count = stated if os.environ.get("HARMONY_SOAK") == "1" else max(1, stated // 10)
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0].rpartition("::")[2]
    told.append(f"{count:>9,} of {stated:>9,}  {test}")
    return count


def seed(*remarks: str) -> int:
    """$HARMONY_SEED, else another one each time; told, so that it can be set, with *remarks*."""
    number = int(os.environ.get("HARMONY_SEED", random.randrange(2**32)))
    told.append("  ".join([f"{'':22}HARMONY_SEED={number}", *remarks]))
    print(told[-1].strip())
    return number

"""How often the long tests repeat: in full for `make soak` and `make security`, a part of it for `make test`.

What was run of what is stated is told at the end of the test run (`tests/conftest.py`), and so is what came
of each battery of attacks.
"""

from __future__ import annotations

import os
import random

__all__ = ["is_marked", "runs", "seed", "tell", "told"]

is_marked = False
"""Whether the test that runs now is marked soak or security: said by `tests/conftest.py`."""

told: list[str] = []
"""One line for each test that asked, in the order in which they did."""


def runs(stated: int, *, part: int = 10) -> int:
    """Return *stated* with HARMONY_SOAK=1, else the *part*-th part of it (at least 1).

    Only for tests that are marked soak or security.
    """
    assert is_marked, (
        "a test that asks for runs is marked soak or security, or `make soak` and `make security` would "
        "leave it out"
    )
    count = stated if os.environ.get("HARMONY_SOAK") == "1" else max(1, stated // part)
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0].rpartition("::")[2]
    told.append(f"runs: {count:>9,} of {stated:>9,}  {test}")
    return count


def seed(*remarks: str) -> int:
    """$HARMONY_SEED, else another one each time; told, so that it can be set, with *remarks*."""
    number = int(os.environ.get("HARMONY_SEED", random.randrange(2**32)))
    told.append("  ".join([f"runs: {'':22}HARMONY_SEED={number}", *remarks]))
    print(told[-1].removeprefix("runs:").strip())
    return number


def tell(battery: str, found: str) -> None:
    """Tell at the end of the test run what *battery* has *found*: how many attacks, and what came of them."""
    told.append(f"security: {battery:<12} {found}")

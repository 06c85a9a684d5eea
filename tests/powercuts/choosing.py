"""Which of many cuts are tried, of each kind as many as of any other; and what came of each."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import ParamSpec

from .disk import Cut

__all__ = ["chosen", "failure_of"]

P = ParamSpec("P")


def chosen(cuts: Sequence[Cut], count: int, seed: int) -> list[Cut]:
    """Return *count* of them, or all, by the dice of *seed*."""
    kinds: defaultdict[str, list[Cut]] = defaultdict(list)
    for each in random.Random(seed).sample(cuts, len(cuts)):
        kinds[each.how].append(each)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*kinds.values()))
    return list(itertools.islice(filter(None, in_turn), count))


def failure_of(check: Callable[P, None], /, *args: P.args, **kwargs: P.kwargs) -> str:
    """Return why *check* fails, in words; empty where it does not. One loss must not hide the next."""
    try:
        check(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - what cannot be started, or read, is as lost
        print(f"lost: {args[-1]}: {error!r}")
        return f"{args[-1]}: {error!r}"
    return ""

"""Close names: what somebody may have meant who typed a name that there is none of."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean"]

_CLOSE = 0.6


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'pi-1' or 'pi-2'?`` for the known names closest to *name*, or nothing."""
    import difflib  # noqa: PLC0415 - a device that is asked for nothing unknown never needs it

    by_lower = {each.lower(): each for each in sorted(known)}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=_CLOSE)
    if not close:
        return ""
    return f"; did you mean {' or '.join(sorted(repr(by_lower[each]) for each in close))}?"

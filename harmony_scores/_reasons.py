"""Failures in a Score's own words: what its user reads of is what they wrote, not what it was made into."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from harmony_core.errors import UnitFailed
from harmony_core.reasons import reasons_in

__all__ = ["in_its_own_words"]


@contextmanager
def in_its_own_words() -> Generator[None]:
    """Within the block, explain the failure of a unit by the reason that its program gives, if it gives
    one."""
    try:
        yield
    except UnitFailed as error:
        reasons = reasons_in(error.message)
        if not reasons:
            raise
        raise UnitFailed(
            reasons, resource=error.resource, retry_after_s=error.retry_after_s
        ) from error

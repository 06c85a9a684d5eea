"""What is told of the long runs is true."""

from __future__ import annotations

import pytest

from tests.soak import runs


def test_what_repeats_has_to_be_marked_or_the_long_runs_would_leave_it_out() -> None:
    with pytest.raises(AssertionError, match="is marked soak or security"):
        runs(10)

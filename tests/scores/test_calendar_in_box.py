"""What is taken for a calendar time is what the systemd of a Pi takes for one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmony_core.calendars import calendar_problem
from tests.box import Box
from tests.core.calendar_texts import BAD, GOOD, TEXTS

SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture)


def refused(pi: Box, texts: Sequence[str]) -> set[str]:
    done = pi.run(["systemd-analyze", "calendar", "--", *texts], check=False)
    said = done.stderr.decode()
    return set(re.findall(r"^Failed to parse calendar specification '(.*)': ", said, re.MULTILINE))


def test_what_systemd_takes_and_what_not_is_written_down_as_it_is(pi: Box) -> None:
    assert refused(pi, [*GOOD, *BAD]) == set(BAD)


@settings(max_examples=10, deadline=None, suppress_health_check=SLOW)
@given(st.lists(TEXTS, min_size=50, max_size=300, unique=True))
def test_systemd_and_we_agree_on_whatever_is_written(pi: Box, texts: list[str]) -> None:
    assert refused(pi, texts) == {text for text in texts if calendar_problem(text) is not None}

"""What is taken for a calendar time is what the systemd of a Pi takes for one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmony_core.calendars import calendar_problem, last_begin, window_problem
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


def test_systemd_and_we_agree_on_when_a_window_begins(pi: Box) -> None:
    base = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
    texts = [each for each in GOOD if window_problem(each) is None]
    told = pi.run(
        ["systemd-analyze", "calendar", "--base-time", "2026-11-28 12:00:00 UTC", "--", *texts],
        check=False,
    ).stdout.decode()
    parts = re.split(r"^(?:  Original form: .*\n)?Normalized form: .*\n", told, flags=re.MULTILINE)[
        1:
    ]
    assert len(parts) == len(texts)
    compared = 0
    for text, part in zip(texts, parts, strict=True):
        found = re.search(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", part)
        if found is None:
            continue
        begins = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        if begins.second:
            continue
        at = begins + timedelta(seconds=30)
        assert last_begin(text, at, UTC, timedelta(minutes=1)) == begins, text
        if begins - base < timedelta(days=2):
            before = begins - timedelta(seconds=30)
            assert last_begin(text, before, UTC, before - base) is None, text
        compared += 1
    assert compared > 10

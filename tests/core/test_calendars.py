"""Calendar times, judged as systemd does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from harmony_core.calendars import calendar_problem, last_begin, window_problem
from harmony_scores import RebootScore, TimerScore
from tests.core.calendar_texts import BAD, GOOD


@pytest.mark.parametrize("text", GOOD)
def test_what_systemd_takes_is_taken(text: str) -> None:
    assert calendar_problem(text) is None


@pytest.mark.parametrize("text", BAD)
def test_what_systemd_does_not_take_is_refused(text: str) -> None:
    assert calendar_problem(text)


@pytest.mark.parametrize("text", ["*-*-*\n02:00", "*-*-*\t02:00", "02:00\n", "\u0662:00", "", " "])
def test_it_is_one_line_of_plain_letters(text: str) -> None:
    assert calendar_problem(text)


@pytest.mark.parametrize(
    ("crontab", "here"),
    [
        ("0 2 * * *", "*-*-* 02:00"),
        ("*/15 * * * *", "*-*-* *:0/15"),
        ("30 4 1 * *", "*-*-01 04:30"),
        ("0 8 * * 1-5", "Mon..Fri *-*-* 08:00"),
        ("0 8 * * mon,wed", "Mon,Wed *-*-* 08:00"),
        ("0 22 * * 0", "Sun *-*-* 22:00"),
        ("0 22 * * 7", "Sun *-*-* 22:00"),
        ("0 0 * * 5-7", "Fri..Sun *-*-* 00:00"),
        ("5 0 * aug *", "*-08-* 00:05"),
        ("23 0-20/2 * * *", "*-*-* 00..20/2:23"),
        ("0 4 8-14 * *", "*-*-08..14 04:00"),
    ],
)
def test_a_line_of_a_crontab_is_told_what_it_would_be_here(crontab: str, here: str) -> None:
    problem = calendar_problem(crontab)
    assert problem is not None
    assert problem.endswith(f"here it would be {here}")
    assert calendar_problem(here) is None


@pytest.mark.parametrize(
    ("crontab", "says"),
    [
        ("0 0 1 * 3", "make it two timers"),
        ("99 2 * * *", "systemd.time(7)"),
        ("@daily", "it is daily"),
    ],
)
def test_a_line_that_cannot_be_said_here_is_told_why(crontab: str, says: str) -> None:
    assert says in (calendar_problem(crontab) or "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 2 * * *", "here it would be *-*-* 02:00"),
        ("Mon..Fry 25:00", "'Fry' in 'Mon..Fry' is neither a weekday"),
        ("25:00", "'25': the hour is from 0 to 23"),
        ("1:00 CET", "Europe/Berlin"),
        ("1:00 Nowhere/x", "'Nowhere/x' is no time zone that is known here"),
        ("daily 1:00", "stands alone"),
        ("0/24:00", "comes again only out of bounds"),
    ],
)
def test_a_timer_is_refused_by_the_field_before_it_is_pushed(text: str, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TimerScore(name="nightly", exec_start=("/bin/true",), on_calendar=text)
    (error,) = caught.value.errors()
    assert error["loc"] == ("on_calendar",)
    assert says in error["msg"]


BERLIN = ZoneInfo("Europe/Berlin")
SUNDAY = datetime(2026, 11, 29, 3, 30, 20, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("text", "ago_min"),
    [
        ("Sun 03:00", 30),
        ("Sat,Sun *-*-* 02:45", 45),
        ("Fri..Sun 03:30", 0),
        ("Sun", None),
        ("Mon..Sat 03:00", None),
        ("03:00", 30),
        ("*-*-* *:0/20", 10),
        ("*-11-29 03:00", 30),
        ("2026-*-* 03:00", 30),
        ("26-11-29 03:00", 30),
        ("2027-*-* 03:00", None),
        ("*-*~02 03:00", 30),
        ("*-*~01 03:00", None),
        ("*-*~3/1 03:00", 30),
        ("*-1..11/2-* 03:00", 30),
        ("hourly", 30),
        ("daily", None),
        ("02:20", None),
        ("03:31", None),
    ],
)
def test_when_a_window_began_is_told_in_the_zone_of_the_device(
    text: str, ago_min: int | None
) -> None:
    assert window_problem(text) is None
    began = last_begin(text, SUNDAY, BERLIN, timedelta(hours=1))
    assert began == last_begin(text, SUNDAY.astimezone(UTC), BERLIN, timedelta(hours=1))
    expected = SUNDAY.replace(second=0) - timedelta(minutes=ago_min or 0)
    assert began == (None if ago_min is None else expected)


def test_an_hour_that_is_left_out_in_spring_has_no_window() -> None:
    after = datetime(2026, 3, 29, 1, 10, tzinfo=UTC)  # 03:10, ten minutes after 01:59
    assert last_begin("02:30", after, BERLIN, timedelta(hours=2)) is None
    assert last_begin("01:30", after, BERLIN, timedelta(hours=2)) is not None


@pytest.mark.parametrize(
    "text", ["Sun 25:00", "", "Sun 03:00:30", "Sun 03:00 UTC", "Sun 03:00 Europe/Berlin", "@17"]
)
def test_what_is_no_window_is_refused(text: str) -> None:
    assert window_problem(text)
    with pytest.raises(ValidationError, match="window"):
        RebootScore(when="window", window=text)


def test_a_window_is_given_where_it_counts() -> None:
    with pytest.raises(ValidationError, match='where when is "window"'):
        RebootScore(when="now", window="Sun 03:00")

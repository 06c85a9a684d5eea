"""Calendar times, judged as systemd does."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from harmony_core.calendars import calendar_problem
from harmony_scores import TimerScore
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

"""Calendar times as systemd.time(7) has them, judged where no systemd is: before they are sent to a device.

    [Weekdays] [[Year-]Month-Day] [Hour:Minute[:Second]] [Time zone]       or a word, as daily

A part is ``*`` or numbers, ``1,15``, ranges, ``1..7``, and repetitions, ``0/15``; ``~`` in place of the last
``-`` counts days from the end of the month.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import ROUND_HALF_UP, Decimal
from typing import TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

__all__ = ["calendar_problem", "last_begin", "window_problem"]

_WORDS = frozenset(
    {
        *("minutely", "hourly", "daily", "weekly", "monthly", "quarterly", "yearly", "annually"),
        *("anually", "semiannually", "semi-annually", "biannually", "bi-annually"),
    }
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DAY_NUMBERS = {name.lower(): number for number, day in enumerate(_DAYS) for name in (day, day[:3])}
_DAY = re.compile(r"[A-Za-z]+")
_DATE = re.compile(r"(?:(?P<year>[^-~:]+)-)?(?P<month>[^-~:]+)(?P<sign>[-~])(?P<day>[^-~:]+)")
_TIME = re.compile(r"(?P<hour>[^:]+):(?P<minute>[^:]+)(?::(?P<second>[^:]+))?")
_NUMBER = r"[0-9]+"
_FRACTION = r"[0-9]+(?:\.[0-9]+)?"
_CRONTAB = re.compile(r"\S+(?: +\S+){4}")
_CRON_ITEM = re.compile(
    r"(?P<first>\*|[0-9]+|[A-Za-z]{3})(?:-(?P<last>[0-9]+|[A-Za-z]{3}))?(?:/(?P<step>[0-9]+))?"
)
_CRON_NAMES = {
    name: str(number)
    for names in (
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
        ("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
    )
    for number, name in enumerate(names, start=1)
}
_FROM_THE_END = "day before the end of a month"
_BOUNDS = {
    "year": (1970, 2199),
    "month": (1, 12),
    "day": (1, 31),
    _FROM_THE_END: (1, 28),
    "hour": (0, 23),
    "minute": (0, 59),
    "second": (0, 59),
}
_Item: TypeAlias = tuple[Decimal, Decimal, Decimal]
_LAST_SECOND = 7_258_118_399
"""Of the year 2199, since 1970."""
_SEE = "see systemd.time(7)"


def calendar_problem(text: str) -> str | None:
    """Return what is wrong with *text* as a calendar time, and what to do; None where systemd takes it.

    A time zone is looked up in this machine's list, where it has one. Its abbreviations, as CET, are refused:
    systemd takes them only where they are the device's own.
    """
    if re.search(r"[^ -~]", text):
        return f"{text!r} is not one line of plain letters; {_SEE}"
    try:
        _check(text)
    except ValueError as error:
        return str(error)
    return None


def window_problem(text: str) -> str | None:
    """Return why *text* does not say when a window of time begins, and what to do; None where it does.

    This is `calendar_problem`, limited to whole minutes of the device's own time zone.
    """
    if (problem := calendar_problem(text)) is not None:
        return problem
    if text.startswith("@") or _without_zone(text)[1]:
        return (
            f"{text!r} must be in the device's own time zone, as in Sun 03:00; leave out the zone"
        )
    parts = text.split()
    found = _TIME.fullmatch(parts[-1]) if parts else None
    if found is not None and found["second"] not in {None, "0", "00"}:
        return f"{text!r} has seconds; write hours and minutes alone, as in Sun 03:00"
    return None


def last_begin(text: str, now: datetime, zone: tzinfo | None, within: timedelta) -> datetime | None:
    """Return when the calendar time *text* last occurred, less than *within* before *now*; None where it did
    not.

    *text* is one that `window_problem` accepts. It is in *zone*; None is this process's own time zone. *now*
    is an aware datetime.
    """
    days, date, time = _split(text)
    minute = now.astimezone(UTC).replace(second=0, microsecond=0)
    while now - minute < within:
        local = minute.astimezone(zone)
        if (
            _is_on_time(time, local)
            and _is_on_date(date, local)
            and (not days or local.weekday() in days)
        ):
            return local
        minute -= timedelta(minutes=1)
    return None


_AS_DATES = {
    "minutely": "*-*-* *:*",
    "hourly": "*-*-* *:00",
    "daily": "*-*-* 00:00",
    "weekly": "Mon *-*-* 00:00",
    "monthly": "*-*-01 00:00",
    "quarterly": "*-1,4,7,10-01 00:00",
    "yearly": "*-01-01 00:00",
    "annually": "*-01-01 00:00",
    "anually": "*-01-01 00:00",
    "semiannually": "*-1,7-01 00:00",
    "semi-annually": "*-1,7-01 00:00",
    "biannually": "*-1,7-01 00:00",
    "bi-annually": "*-1,7-01 00:00",
}


def _split(text: str) -> tuple[frozenset[int], re.Match[str] | None, re.Match[str] | None]:
    """Return the weekdays that *text* names, its date and its time; empty for any day, and for midnight."""
    words, rest = _days_of(_AS_DATES.get(text.lower(), text))
    days: set[int] = set()
    for each in words.removesuffix(",").split(",") if words else ():
        first, dots, last = each.partition("..") if ".." in each else each.partition("-")
        numbers = [_day(name, words) for name in ((first, last) if dots else (first,))]
        days.update(range(numbers[0], numbers[-1] + 1))
    parts = rest.split()
    date = next((found for each in parts if (found := _DATE.fullmatch(each))), None)
    time = next((found for each in parts if (found := _TIME.fullmatch(each))), None)
    return frozenset(days), date, time


def _is_on_time(time: re.Match[str] | None, local: datetime) -> bool:
    if time is None:
        return (local.hour, local.minute) == (0, 0)
    return _is_in("hour", time["hour"], local.hour) and _is_in(
        "minute", time["minute"], local.minute
    )


def _is_on_date(date: re.Match[str] | None, local: datetime) -> bool:
    if date is None:
        return True
    from_the_end = monthrange(local.year, local.month)[1] - local.day + 1
    return (
        _is_in("year", date["year"] or "*", local.year)
        and _is_in("month", date["month"], local.month)
        and (
            _is_in(_FROM_THE_END, date["day"], from_the_end)
            if date["sign"] == "~"
            else _is_in("day", date["day"], local.day)
        )
    )


def _is_in(part: str, text: str, value: int) -> bool:
    """Return whether *value* is one of those that *text* names, as a *part* of a calendar time."""
    if text == "*":
        return True
    for each in text.split(","):
        span, _, step = each.partition("/")
        first, _, last = span.partition("..")
        low = int(_value(part, first))
        high = int(_value(part, last)) if last else low
        # From the end of a month it is counted, and repeated, towards the end.
        if step and not last:
            low, high = (1, low) if part == _FROM_THE_END else (low, value)
        origin = high if part == _FROM_THE_END and step else low
        if low <= value <= high and (value - origin) % int(step or 1) == 0:
            return True
    return False


def _check(text: str) -> None:
    if (crontab := _from_crontab(text)) is not None:
        raise ValueError(f"{text!r} is a line of a crontab; {crontab}")
    if text.startswith("@"):
        return _check_moment(text[1:])
    words, zone = _without_zone(text)
    if words.lower() in _WORDS:
        return None
    days, rest = _days_of(words)
    parts = rest.split()
    if not parts and not days:
        raise ValueError(f"{text!r} says no time; write one, as in daily or *-*-* 02:00")
    if zone and words.endswith(" ") and ":" in rest:
        raise ValueError(f"{text!r} has two spaces before {zone}; leave out one")
    if len(parts) > 2:
        raise ValueError(
            f"{parts[2]!r} is one part too many: weekdays, date, time and time zone; {_SEE}"
        )
    date = parts.pop(0) if parts and ":" not in parts[0] else None
    if date is not None:
        _check_date(date)
    if len(parts) > 1:
        raise ValueError(
            f"{parts[0]!r} is no date; write one before the time, as in *-*-* {parts[1]}"
        )
    if parts:
        _check_time(parts[0])
    return None


def _check_moment(seconds: str) -> None:
    if not re.fullmatch(_NUMBER, seconds) or int(seconds) > _LAST_SECOND:
        if seconds.lower() in _WORDS:
            raise ValueError(f"'@{seconds}' is a word of crontabs; here it is {seconds.lower()}")
        raise ValueError(f"'@{seconds}' is no moment; write whole seconds since 1970 after the @")


def _without_zone(text: str) -> tuple[str, str]:
    """Return *text* without the time zone at its end, and the time zone."""
    rest, space, last = text.rpartition(" ")
    if not space:
        return text, ""
    if last.lower() == "utc":
        return rest, last
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+_/-]*", last) or last.lower() in _DAY_NUMBERS:
        return text, ""
    if "/" in last or last == "GMT":
        if not _is_zone(last):
            raise ValueError(
                f"{last!r} is no time zone that is known here; write one as Europe/Berlin"
            )
        return rest, last
    if rest.lower() in _WORDS or re.search(r"[0-9*]", rest):
        raise ValueError(
            f"{last!r} is no time zone for every device; write one as Europe/Berlin, or UTC"
        )
    return text, ""


def _is_zone(name: str) -> bool:
    """Return whether there is such a time zone; True also where this machine has no list of time zones."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        try:
            ZoneInfo("Etc/UTC")
        except (ZoneInfoNotFoundError, OSError):
            return True
        return False
    return True


def _days_of(text: str) -> tuple[str, str]:
    """Return the weekdays that *text* begins with, and what follows them. Raise `ValueError` for wrong
    weekdays."""
    if not _DAY.match(text):
        return "", text
    days, _, rest = text.partition(" ")
    for each in days.removesuffix(",").split(","):
        first, dots, last = each.partition("..") if ".." in each else each.partition("-")
        numbers = [_day(name, days) for name in ((first, last) if dots else (first,))]
        if numbers != sorted(numbers):
            raise ValueError(
                f"{each!r} ends before it begins: weeks begin on Monday; write two ranges"
            )
    return days, rest.lstrip(" ")


def _day(name: str, days: str) -> int:
    number = _DAY_NUMBERS.get(name.lower())
    if number is None and name.lower() in _WORDS:
        raise ValueError(
            f"{name!r} stands alone; write a date and a time instead, as in *-*-* 02:00"
        )
    if number is None:
        raise ValueError(
            f"{name!r} in {days!r} is neither a weekday nor a word that systemd knows; write Mon, Tue, Wed, "
            "Thu, Fri, Sat, Sun, as in Mon..Fri 08:00, or daily, weekly, monthly"
        )
    return number


def _check_date(text: str) -> None:
    found = _DATE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is neither a date, as *-*-01, nor a time, as 08:00; {_SEE}")
    if found["year"] is not None:
        _check_part("year", found["year"])
    _check_part("month", found["month"])
    _check_part(_FROM_THE_END if found["sign"] == "~" else "day", found["day"])


def _check_time(text: str) -> None:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no time; write hours and minutes, as in 08:00")
    for part in ("hour", "minute", "second"):
        if found[part] is not None:
            _check_part(part, found[part])


def _check_part(part: str, text: str) -> None:
    if text == "*":
        return
    items = sorted({_item(part, each): each for each in text.split(",")}.items())
    for place, (item, each) in enumerate(items):
        _check_item(part, each, item, place)


def _item(part: str, text: str) -> _Item:
    """Return first, last and step of *text*. The last value is the last one that the step reaches; the step
    is 0 for none."""
    number = _FRACTION if part == "second" else _NUMBER
    found = re.fullmatch(rf"({number})(?:\.\.({number}))?(?:/({number}))?", text)
    if found is None:
        star = "; * stands alone, write 0/N for every N" if "*" in text else ""
        raise ValueError(f"{text!r} is no {part}{star}; {_SEE}")
    first = _value(part, found[1])
    step = _round_to_micros(found[3] or "0")
    if found[3] is not None and not step:
        raise ValueError(f"{text!r} repeats by nothing; write 1 or more after the /")
    if found[2] is None:
        return first, first, step
    last = _value(part, found[2])
    if last < first:
        raise ValueError(f"{text!r} ends before it begins, as a {part}; write two, with a comma")
    if not step and part == "second" and last - first < 1:
        raise ValueError(
            f"{text!r} is shorter than a second, by which it is repeated; write one number"
        )
    return first, last - (last - first) % (step or 1), Decimal(0)


def _check_item(part: str, text: str, item: _Item, place: int) -> None:
    """Raise where a value begins, ends or repeats out of bounds. It is at *place* in its sorted list."""
    low, high = _BOUNDS[part]
    first, last, step = item
    # From the end of a month it is counted backwards; and systemd's bound there falls from item to item.
    again = first - step
    if part == _FROM_THE_END:
        high -= 3 * place
    else:
        again = first + step
    for each in (first, last, again):
        if not low <= each < high + 1:
            comes = "comes again only out of bounds: it " if each is again and each != first else ""
            raise ValueError(f"{text!r}: the {part} {comes}is from {low} to {high}")


def _value(part: str, digits: str) -> Decimal:
    value = _round_to_micros(digits)
    if part == "year" and value < 100:
        value += 2000 if value < 70 else 1900
    return value


def _round_to_micros(digits: str) -> Decimal:
    """Return *digits*, which are seconds, in whole microseconds."""
    return Decimal(digits).quantize(Decimal("0.000001"), ROUND_HALF_UP)


def _from_crontab(text: str) -> str | None:
    """Return what the crontab line *text* would be here; None where it is no crontab line."""
    parts = text.split()
    if not _CRONTAB.fullmatch(text):
        return None
    try:
        minute, hour, day, month = (
            _cron_part(part, low) for part, low in zip(parts, (0, 0, 1, 1), strict=False)
        )
        days = _cron_days(parts[4])
    except ValueError:
        return None
    if days and (day, month) != ("*", "*"):
        return "that it means either of two days cannot be said in one here; make it two timers"
    written = f"{days}*-{month}-{day} {hour}:{minute}"
    if calendar_problem(written) is not None:
        return "write it as systemd.time(7) has it, as in *-*-* 02:00"
    return f"here it would be {written}"


def _cron_part(text: str, low: int) -> str:
    return ",".join(_cron_item(each, low) for each in text.split(","))


def _cron_item(text: str, low: int) -> str:
    first, last, step = _cron_words(text)
    if first == "*":
        return f"{low}/{step}" if step and int(step) > 1 else "*"
    said = first.zfill(2) if last is None else f"{first.zfill(2)}..{last.zfill(2)}"
    return f"{said}/{step}" if step else said


def _cron_words(text: str) -> tuple[str, str | None, str | None]:
    """Return first, last and step of *text*, with numbers in place of names."""
    found = _CRON_ITEM.fullmatch(text)
    if found is None:
        raise ValueError(text)
    first, last = (
        None if each is None else _CRON_NAMES.get(each.lower(), each)
        for each in (found["first"], found["last"])
    )
    if first is None or (first.isalpha() or (last or "").isalpha()):
        raise ValueError(text)
    return first, last, found["step"]


def _cron_days(text: str) -> str:
    """Return the weekdays by their names; in a crontab, 0 and 7 are Sunday. Empty for all."""
    numbers: set[int] = set()
    for each in text.split(","):
        first, last, step = _cron_words(each)
        if first == "*":
            first, last = "0", "6"
        numbers.update(range(int(first), int(last or first) + 1, int(step or 1)))
    days = sorted({(each + 6) % 7 for each in numbers})
    if not days or len(days) == len(_DAYS):
        return ""
    if len(days) > 2 and days[-1] - days[0] == len(days) - 1:
        return f"{_DAYS[days[0]][:3]}..{_DAYS[days[-1]][:3]} "
    return f"{','.join(_DAYS[each][:3] for each in days)} "

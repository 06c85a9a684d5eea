"""Calendar times that systemd takes, that it does not, and a strategy that makes both."""

from __future__ import annotations

from hypothesis import strategies as st

__all__ = ["BAD", "GOOD", "TEXTS"]

GOOD = """
daily
Weekly
bi-annually
*-*-* 02:00
Mon
Mon..Fri 8:00
Mon-Fri 8:00
mon,TUESDAY..thu,  *-*-1..7,15/5,31 1:0
Mon..Mon,Mon 1:00
Mon, 1:00
Mon UTC
Mon   UTC
*-1-1  1:00
10-31
02-30
24-1-1
99..2001-1-1
1970-1-1
2199-12-31
*-*~1
*~28
*~24,25
*~1..28,2
*~5/4
*~3..9/6
*-02~03/1
1..5/2-1
5..5/10-*
*:0/15
0/23:0
1:0/59
2,3,4:5
0000008:5
*:*:*
8:5:5.1234567
0:0:59.99999949
*:*:34..35
*:*:58.5..60
*:*:34.5..34.9/0.1
4..24/19:0
1:00 Europe/Berlin
1:00 Etc/GMT+5
1:00 utc
daily UTC
@0
@86400
@7258118399
""".strip().splitlines()

BAD = """
never
every full moon
0 2 * * *
Mon..Fry 25:00
Mondays
Fri..Mon 10:00
Sun..Mon
Mon, Tue 1:00
Mon .. Fri 1:00
Mon,,Tue
,Mon
Mon-Wed-Fri
Mon daily
daily Mon
daily 1:00
daily  UTC
UTC
1:00  UTC
1:00UTC
1:00 Nowhere/x
1:00 ../x
1:00 europe/nowhere
8
8:
8:00:
1:2:3:4
24:00
23:60
23:59:60
0:0:59.9999999
8:5:.5
8:5:5.
1/0:0
0/24:0
*/2:00
*:*/10
23..1:0
1,:0
1..:0
24..30/20:0
*:*:34..34
*:*:34.2..35
8:5:5/0.0000001
0-1
13-1
1-32
*-*~29
*~1,26
*~5/5
*~26..29/3
~1
-1
1-
1-1-1-1
100-1-1
1969-1-1
2200-1-1
1970/230-1-1
2024-01-01T10:00
*-*-* 1
*-*-*1:00
Sat*-*-*
1:00Mon
*
Mon *
@
@x
@1.5
@7258118400
""".strip().splitlines()


def _item(high: int) -> st.SearchStrategy[str]:
    number = st.integers(0, high + 2).map(str)
    return st.builds(
        "".join,
        st.tuples(
            number,
            st.just("") | number.map("..{}".format),
            st.just("") | st.just("") | number.map("/{}".format),
        ),
    )


def _part(high: int) -> st.SearchStrategy[str]:
    return st.just("*") | st.lists(_item(high), min_size=1, max_size=3).map(",".join)


_SECOND = _part(59) | st.decimals(0, 61, places=4).map(str)
_YEAR = _part(99) | st.integers(1965, 2203).map(str)
_DATE = st.builds(
    "{}{}{}{}".format,
    st.just("") | _YEAR.map("{}-".format),
    _part(12),
    st.sampled_from("--~"),
    _part(31),
)
_TIME = st.builds("{}:{}{}".format, _part(23), _part(59), st.just("") | _SECOND.map(":{}".format))
_DAY = st.sampled_from(["Mon", "tue", "Wednesday", "THU", "Fri", "saturday", "Sun"])
_DAYS = st.lists(
    _DAY | st.builds("{}..{}".format, _DAY, _DAY) | st.builds("{}-{}".format, _DAY, _DAY),
    min_size=1,
    max_size=3,
).map(",".join)
_ZONE = st.sampled_from(["UTC", "utc", "Europe/Berlin", "Etc/GMT+5", "GMT", "Nowhere/x"])


def _joined(gap: str, *parts: str) -> str:
    return gap.join(filter(None, parts))


_MADE = st.builds(
    _joined,
    st.sampled_from([" ", " ", "  "]),
    st.just("") | _DAYS,
    st.just("") | _DATE,
    _TIME | st.just(""),
    st.just("") | st.just("") | _ZONE,
)


def _struck(text: str, where: int, what: str) -> str:
    place = where % (len(text) + 1)
    return text[:place] + what + text[place + 1 :]


TEXTS = (
    (
        _MADE
        | st.sampled_from([*GOOD, *BAD])
        | st.builds(
            _struck, _MADE, st.integers(0, 99), st.sampled_from([*"0123456789*:,./~ -aMT", ""])
        )
    )
    .map(str.strip)
    .filter(bool)
)
"""Some of each, and some that are off by a character."""

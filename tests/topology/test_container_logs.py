"""What podman tells of a container's log: lines, their times, and where to go on."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_pi_topology.containers.logs import log_lines


def frame(text: str | bytes, second: int = 0, stream: int = 1, zone: str = "Z") -> bytes:
    body = text if isinstance(text, bytes) else text.encode()
    line = f"2026-01-31T12:00:{second:02}{zone} ".encode() + body + b"\n"
    return struct.pack(">BxxxL", stream, len(line)) + line


BODY = (
    frame("one") + frame("two", stream=2) + frame("three", 1) + frame("four", 1) + frame("five", 3)
)
NOON_S = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp())


def texts(body: bytes, after: str | None = None) -> list[str]:
    return [each.text for each in log_lines(body, after=after)]


def test_every_line_has_its_time_its_stream_and_a_cursor() -> None:
    told = log_lines(BODY)
    assert [(each.text, each.stream) for each in told] == [
        ("one", "out"),
        ("two", "err"),
        ("three", "out"),
        ("four", "out"),
        ("five", "out"),
    ]
    assert told[0].at == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert [each.cursor for each in told] == [
        f"{NOON_S}/1",
        f"{NOON_S}/2",
        f"{NOON_S + 1}/1",
        f"{NOON_S + 1}/2",
        f"{NOON_S + 3}/1",
    ]


@pytest.mark.parametrize("count", range(1, 6))
def test_from_any_cursor_on_nothing_is_missed_and_nothing_told_twice(count: int) -> None:
    had = log_lines(BODY)[:count]
    second = had[-1].at.second
    from_that_second_on = BODY[BODY.index(f"12:00:{second:02}".encode()) - 19 :]
    assert texts(from_that_second_on, had[-1].cursor) == texts(BODY)[count:]


def test_a_time_of_another_zone_is_the_same_time() -> None:
    (line,) = log_lines(frame("one", zone="+01:00"))
    assert line.at == datetime(2026, 1, 31, 11, tzinfo=UTC)


def test_what_is_not_a_cursor_is_none() -> None:
    assert texts(BODY, "s=1;i=2") == texts(BODY)


def test_bytes_that_are_no_text_are_told_as_far_as_they_are() -> None:
    assert texts(frame(b"a\xffb")) == ["a\ufffdb"]


@given(st.integers(0, len(BODY)))
def test_what_is_cut_off_anywhere_is_told_up_to_there(size: int) -> None:
    told = log_lines(BODY[:size])
    assert told == log_lines(BODY)[: len(told)]


@given(st.binary(max_size=200))
def test_no_bytes_are_an_exception(body: bytes) -> None:
    log_lines(body)
    log_lines(BODY + body, after=f"{NOON_S}/1")

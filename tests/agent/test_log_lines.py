"""The agent's own log: nothing that others wrote begins a line of it, or steers a terminal."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Generator

import pytest

from harmony_agent.log_lines import LINE_MAX_BYTES, LogLines

# Beneath the root, the test runner would read it, too, and half characters end it.
log = logging.Logger("test")  # noqa: LOG001 - as the comment says
FORGED = "ERROR motd: forged"


@pytest.fixture
def written() -> Generator[io.StringIO]:
    """What the handler of the agent writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogLines())
    log.addHandler(handler)
    yield stream
    log.removeHandler(handler)


HOSTILE = [
    r"\n",
    r"\r",
    r"\r\n",
    r"\x1b[2J",
    r"\x9b31m",
    r"\x85",
    r"\u2028",
    r"\u2029",
    r"\x00",
    r"\x0b",
    r"\x0c",
    r"\ud800",
]


@pytest.mark.parametrize("shown", HOSTILE)
def test_what_others_wrote_stays_in_its_line(written: io.StringIO, shown: str) -> None:
    hostile = shown.encode().decode("unicode_escape")
    log.warning("container web said: %s", f"a{hostile}{FORGED}")
    assert written.getvalue() == f"WARNING container web said: a{shown}{FORGED}\n"


def test_what_is_long_is_cut_before_the_journal_would_begin_a_new_line(
    written: io.StringIO,
) -> None:
    log.warning("%s", "\x1b" * 100_000 + FORGED)
    (line,) = written.getvalue().splitlines()
    assert len(line.encode()) < LINE_MAX_BYTES + 100
    assert line.endswith("… (400026 bytes)")


def _fail(depth: int = 0) -> None:
    if depth:
        _fail(depth - 1)
    raise ValueError(f"a\n{FORGED}\x1b")


def test_an_error_has_a_line_for_each_frame_and_one_for_what_it_says(written: io.StringIO) -> None:
    try:
        try:
            _fail()
        except ValueError as error:
            error.add_note(f"noted\n{FORGED}")
            raise ExceptionGroup("several\n", [error, KeyError("inner\r")]) from error
    except ExceptionGroup:
        log.exception("looking at %s failed", "web\n")
    lines = written.getvalue().splitlines()
    assert lines[0] == "ERROR looking at web\\n failed"
    assert all(line.startswith("  ") for line in lines[1:])
    assert f"  ValueError: a\\n{FORGED}\\x1b\\nnoted\\n{FORGED}" in lines
    assert "  which led to:" in lines
    assert "  ExceptionGroup: several\\n (2 sub-exceptions)" in lines
    assert "    KeyError: 'inner\\r'" in lines
    assert sum("in _fail: raise ValueError" in line for line in lines) == 1
    assert FORGED not in [line.strip() for line in lines]


def test_of_a_deep_recursion_the_last_frames_are_told(written: io.StringIO) -> None:
    try:
        _fail(200)
    except ValueError:
        log.exception("it failed")
    lines = written.getvalue().splitlines()
    assert len(lines) == 1 + 30 + 1
    assert "raise ValueError" in lines[-2]


def test_an_error_that_cannot_say_what_it_is_is_told_all_the_same(written: io.StringIO) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError(FORGED)

    mute = MuteError()
    mute.__context__ = mute
    log.error("it failed", exc_info=mute)
    assert "MuteError" in written.getvalue().splitlines()[-1]


BEGIN = """import sys
from harmony_agent.log_lines import begin_logging
begin_logging(sys.stderr, verbose=False)
"""
PAST_THE_LOG = [
    f"raise ValueError('a\\n{FORGED}')",
    f"import warnings; warnings.warn('a\\n{FORGED}')",
    f"import threading; t = threading.Thread(target=lambda: int('a\\n{FORGED}')); t.start(); t.join()",
    f"exec('class A:\\n def __del__(self): raise ValueError(\"a\\\\n{FORGED}\")'); A()",
]


@pytest.mark.parametrize("code", PAST_THE_LOG, ids=["error", "warning", "thread", "finaliser"])
def test_what_python_itself_writes_goes_the_same_way(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code], check=False, capture_output=True, text=True
    )
    assert f"a\\n{FORGED}" in done.stderr
    assert not [each for each in done.stderr.splitlines() if each.startswith(FORGED)]

"""journalctl, as it might behave: its last lines, or none, in bounded time; never an error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import pytest

from harmony_pi_topology._journal import Journal


def printing(*lines: str, then: str = "") -> Sequence[str]:
    """A command that prints *lines*, whatever it is asked."""
    text = "".join(f"{line}\n" for line in lines)
    return (sys.executable, "-c", f"print({text!r}, end='', flush=True)\n{then}")


def entry(message: object, transport: str = "stdout") -> str:
    return json.dumps({"MESSAGE": message, "_TRANSPORT": transport, "__CURSOR": "s=1"})


async def tail(command: Sequence[str]) -> str:
    return await Journal(command).tail("web.service", 20)


async def test_lines_are_told_in_their_order() -> None:
    command = printing(entry("Starting…", "journal"), entry("boom"), entry("bang"))
    assert await tail(command) == "Starting…\nboom\nbang"


async def test_bytes_that_are_not_text_are_told_as_far_as_they_are() -> None:
    assert await tail(printing(entry([104, 105, 255, 300]))) == "hi\ufffd"


async def test_a_line_that_is_too_long_for_the_journal_is_hinted_at() -> None:
    assert await tail(printing(entry(None))) == "…"


@pytest.mark.parametrize(
    "line", ["", "no JSON", "[]", '{"MESSAGE": {}}', '{"MESSAGE": "cut o', "\\ud800"]
)
async def test_what_is_not_an_entry_is_passed_over(line: str) -> None:
    assert await tail(printing(line, entry("boom"))) == "boom"


async def test_a_command_that_is_not_there_has_nothing_to_tell() -> None:
    assert await tail(["/nonexistent/journalctl"]) == ""


async def test_what_floods_us_is_cut_off() -> None:
    command = printing(then="while True: print('x' * 1000)")
    assert await tail(command) == ""


async def test_what_hangs_is_given_up() -> None:
    journal = Journal(printing(then="import time; time.sleep(60)"), within_s=0.2)
    assert await journal.tail("web.service", 20) == ""


async def test_when_the_unit_s_own_lines_are_not_there_yet_there_is_a_second_look(
    tmp_path: object,
) -> None:
    early, late = entry("Started", "journal"), entry("boom")
    mark = f"{tmp_path}/asked"
    script = (
        "import os, sys\n"
        f"late = os.path.exists({mark!r}); open({mark!r}, 'w').close()\n"
        f"print({early!r})\n"
        f"if late: print({late!r})\n"
    )
    assert await tail((sys.executable, "-c", script)) == "Started\nboom"

"""journalctl, as it might behave: its last lines, or none, in bounded time; never an error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harmony_core.errors import CapabilityUnavailable, TimedOut
from harmony_core.logs import LogLine
from harmony_pi_topology.common.journal import Journal


def printing(*lines: str, then: str = "") -> Sequence[str]:
    """A command that prints *lines*, whatever it is asked."""
    text = "".join(f"{line}\n" for line in lines)
    return (sys.executable, "-c", f"print({text!r}, end='', flush=True)\n{then}")


def entry(message: object) -> str:
    return json.dumps({"MESSAGE": message, "__CURSOR": "s=1"})


async def tail(command: Sequence[str]) -> str:
    return await Journal(command).tail("web.service", 20)


async def test_lines_are_told_in_their_order() -> None:
    command = printing(entry("Starting…"), entry("boom"), entry("bang"))
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


@pytest.mark.parametrize("arrives", [[0, 1], [1, 2, 3], [0, 3]], ids=str)
async def test_what_arrives_by_and_by_is_looked_for_until_there_is_nothing_new(
    arrives: list[int], tmp_path: Path
) -> None:
    """So many of three lines are there at each look, and then all."""
    told = [entry(f"line {n}") for n in range(1, 4)]
    mark = tmp_path / "asked"
    script = (
        "from pathlib import Path\n"
        f"mark, arrives = Path({str(mark)!r}), {arrives}\n"
        "looks = len(mark.read_text()) if mark.exists() else 0\n"
        "mark.write_text('x' * (looks + 1))\n"
        "count = arrives[min(looks, len(arrives) - 1)]\n"
        f"print('\\n'.join(['', *{told}][: count + 1]))\n"
    )
    expected = "\n".join(f"line {n}" for n in range(1, arrives[-1] + 1))
    assert await tail((sys.executable, "-c", script)) == expected


async def test_what_never_ends_is_not_looked_for_without_end(tmp_path: Path) -> None:
    mark = tmp_path / "asked"
    script = (
        f"open({str(mark)!r}, 'a').write('x')\n"
        f"import json; n = len(open({str(mark)!r}).read())\n"
        "print(json.dumps({'MESSAGE': f'line {n}'}))\n"
    )
    assert await tail((sys.executable, "-c", script)) == "line 5"


def line(message: object, second: int, pid: str = "12") -> str:
    return json.dumps(
        {
            "MESSAGE": message,
            "_PID": pid,
            "__CURSOR": f"s=1;i={second}",
            "__REALTIME_TIMESTAMP": str(second * 1_000_000 + 250_000),
        }
    )


async def test_the_newest_lines_are_asked_for_and_told_oldest_first(tmp_path: Path) -> None:
    journal = Journal(noting(tmp_path / "asked", line("two", 2), line("one", 1, pid="1")))
    since = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
    told = await journal.lines("web.service", lines=7, since=since)
    assert told == [
        LogLine(at=at(1.25), text="one", stream="system", cursor="s=1;i=1"),
        LogLine(at=at(2.25), text="two", stream="out", cursor="s=1;i=2"),
    ]
    asked = (tmp_path / "asked").read_text().split()
    assert {"--unit=web.service", "--reverse", "--lines=7"} <= set(asked)
    assert "--since=@1769860800.250000" in asked
    assert "--follow" not in asked


async def test_what_follows_a_cursor_is_told_from_there_on(tmp_path: Path) -> None:
    lines = [line(str(n), n) for n in range(5)]
    journal = Journal(noting(tmp_path / "asked", *lines))
    told = await journal.lines("web.service", lines=2, after="s=1;i=0")
    assert [each.text for each in told] == ["1", "2"]
    asked = (tmp_path / "asked").read_text().split()
    assert "--cursor=s=1;i=0" in asked
    assert not {"--reverse", "--lines=2"} & set(asked)


async def test_where_the_entry_of_a_cursor_has_gone_the_next_is_told(tmp_path: Path) -> None:
    journal = Journal(noting(tmp_path / "asked", line("7", 7), line("8", 8)))
    told = await journal.lines("web.service", lines=2, after="s=1;i=0")
    assert [each.text for each in told] == ["7", "8"]


async def test_of_a_flood_the_first_that_come_are_told() -> None:
    command = printing(then=f"while True: print({line('boom', 1)!r})")
    told = await Journal(command).lines("web.service", lines=10_000)
    assert {each.text for each in told} == {"boom"}


async def test_a_very_long_line_is_cut() -> None:
    (told,) = await Journal(printing(line("x" * 100_000, 1))).lines("web.service", lines=1)
    assert told.text == "x" * 8_191 + "…"


async def test_an_entry_longer_than_all_that_is_read_is_in_nobodys_way() -> None:
    """Asked for whole entries, it prints one without end; else, that one as the journal hints at it."""
    hinted = f"print({line(None, 1)!r})\nprint({line('two', 2)!r})"
    script = f"import sys\nif '--all' in sys.argv:\n    print('x' * 9_000_000)\nelse:\n    exec({hinted!r})"
    journal = Journal((sys.executable, "-c", script))
    told = await journal.lines("web.service", lines=10, after="s=1;i=0")
    assert [each.text for each in told] == ["…", "two"]
    assert await journal.tail("web.service", 20) == "…\ntwo"


def hinting(*whole: str, long: str, older: str) -> Sequence[str]:
    """A command that is cut off in *long* when it is asked for whole entries; else it hints at that."""
    cut = "\n".join([*whole, long])
    hinted = "\n".join([*whole, line(None, 2), older])
    script = f"import sys\nprint({cut!r} + 'x' * 9_000_000 if '--all' in sys.argv else {hinted!r})"
    return (sys.executable, "-c", script)


async def test_whoever_follows_comes_past_an_entry_longer_than_all_that_is_read() -> None:
    """From the cursor on: its own entry is whole, and the next is not."""
    journal = Journal(hinting(line("one", 1), long='{"MESSAGE": "', older=line("three", 3)))
    told = await journal.lines("web.service", lines=10, after="s=1;i=1")
    assert [each.text for each in told] == ["…", "three"]


async def test_what_is_older_than_an_entry_longer_than_all_that_is_read_is_told() -> None:
    newest = line("y" * 5_000, 3)
    journal = Journal(hinting(newest, long='{"MESSAGE": "', older=line("one", 1)))
    told = await journal.lines("web.service", lines=10)
    assert [each.text for each in told] == ["one", "…", "y" * 5_000]


async def test_what_was_read_whole_stays_so_where_all_is_too_much() -> None:
    newest, hint = line("y" * 5_000, 3), line(None, 3)
    script = (
        f"import sys\nprint({newest!r} + '\\n' + 'x' * 9_000_000 if '--all' in sys.argv else {hint!r})\n"
        f"print({line('one', 1)!r})"
    )
    told = await Journal((sys.executable, "-c", script)).lines("web.service", lines=10)
    assert [each.text for each in told] == ["one", "y" * 5_000]


async def test_nobody_waits_for_what_it_would_still_print() -> None:
    """A shell that is killed leaves behind what it has called."""
    journal = Journal(("sh", "-c", "seq 1000000; :"))
    assert await journal.lines("web.service", lines=10) == []


async def test_of_a_container_only_podmans_own_entries_are_asked_for(tmp_path: Path) -> None:
    entries = [
        json.dumps({**json.loads(line(text, n)), "PRIORITY": priority})
        for n, (text, priority) in enumerate([("out\n", "6"), ("err\n", "3")], 1)
    ]
    journal = Journal(noting(tmp_path / "asked", *entries))
    told = await journal.container_lines("web", "1a2b", lines=2, after="s=1;i=0")
    assert [(each.text, each.stream) for each in told] == [("out", "out"), ("err", "err")]
    podmans = ["_UID=0", "_COMM=conmon"]
    asked = (tmp_path / "asked").read_text().split()
    by_name, by_id = (*podmans, "CONTAINER_NAME=web", "+"), (*podmans, "CONTAINER_ID_FULL=1a2b")
    assert asked[-7:] == [*by_name, *by_id]
    assert await journal.container_tail("1a2b", 2) == "out\nerr"
    asked = (tmp_path / "asked").read_text().split()
    assert asked[-3:] == [*by_id]


async def test_a_cursor_of_another_log_is_none(tmp_path: Path) -> None:
    journal = Journal(noting(tmp_path / "asked", line("one", 1)))
    await journal.container_lines("web", "1a2b", lines=2, after="1767182400/3")
    assert "--reverse" in (tmp_path / "asked").read_text().split()


async def test_a_journal_that_cannot_be_read_is_told_as_that() -> None:
    with pytest.raises(CapabilityUnavailable, match="is it installed"):
        await Journal(["/nonexistent/journalctl"]).lines("web.service", lines=1)
    with pytest.raises(CapabilityUnavailable, match="status 3"):
        await Journal(printing(then="raise SystemExit(3)")).lines("web.service", lines=1)
    hanging = Journal(printing(then="import time; time.sleep(60)"), lines_within_s=0.2)
    with pytest.raises(TimedOut):
        await hanging.lines("web.service", lines=1)


def noting(path: Path, *lines: str) -> Sequence[str]:
    """A command that notes what it is asked, and prints *lines*."""
    text = "".join(f"{each}\n" for each in lines)
    script = (
        f"import pathlib, sys; pathlib.Path({str(path)!r}).write_text('\\n'.join(sys.argv[1:]))\n"
        f"print({text!r}, end='')"
    )
    return (sys.executable, "-c", script)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

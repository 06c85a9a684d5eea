"""README.md: its Score runs, and its commands can be typed."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harmony_control.cli.parser import parser
from harmony_control.score_files.read import read_score_files
from harmony_core import Noop, Success
from harmony_core.plugins import Registry
from harmony_core.testing import FakePi, interpret_twice

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
TYPED = [
    line.removeprefix("~/harmony/bin/")
    for kind, block in BLOCKS
    if not kind
    for line in block.splitlines()
]
AT_A_PROMPT = [line[2:] for line in README.splitlines() if line.startswith("$ ")]
IN_A_TABLE = re.findall(r"^\| `(harmony [^`]*)` \|", README, re.MULTILINE)
COMMANDS = [
    shlex.split(line, comments=True)
    for line in (*TYPED, *AT_A_PROMPT, *IN_A_TABLE)
    if line.startswith("harmony ")
]


async def test_the_first_score_is_success_then_noop(tmp_path: Path) -> None:
    (code,) = (block for kind, block in BLOCKS if kind == "python")
    (tmp_path / "own.py").write_text(code)
    entries = read_score_files([str(tmp_path / "own.py")], Registry())
    pi = FakePi()
    first, second = await interpret_twice(entries["greeting"].score, pi.offers)
    assert isinstance(first, Success)
    assert second == Noop()
    assert (pi.files.read("/etc/greeting") or b"").startswith(b"Hello Ada")


@pytest.mark.parametrize("command", COMMANDS, ids=shlex.join)
def test_every_command_can_be_typed(command: list[str]) -> None:
    assert parser().parse_args(command[1:]).module


@pytest.mark.parametrize("command", re.findall(r"`harmony-agent ([\w-]+)`", README))
def test_every_command_of_the_agent_can_be_typed(command: str) -> None:
    arguments = [sys.executable, "-m", "harmony_agent.cli", command, "--help"]
    done = subprocess.run(arguments, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_that_there_is_is_shown() -> None:
    shown = {each[1] for each in COMMANDS}
    known = set(re.findall(r"command\(\s*\"([\w-]+)\"", inspect.getsource(parser)))
    assert len(known) > 15
    assert known - shown == {"completion"}


def _find_typed_until_the_first_score(section: str) -> list[str]:
    """All that somebody types who follows *section*, up to the first push; but what only looks."""
    typed: list[str] = []
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        lines = [line for line in block.splitlines() if line]
        typed += (
            lines if not kind else [line[2:] for line in lines if line.startswith(("$ ", "# "))]
        )
    upto = next(n for n, line in enumerate(typed) if line.startswith("harmony push-score"))
    looks = ("harmony diff", "/opt/harmony/bin/harmony-agent check")
    return [line for line in typed[: upto + 1] if not line.startswith(looks)]


def test_the_first_score_on_a_pi_takes_eight_commands_and_each_further_pi_one() -> None:
    section = README.partition("## A fleet of one's own\n")[2].partition("\n## ")[0]
    typed = ["git clone", "cd", *_find_typed_until_the_first_score(section)]
    assert len(typed) <= 8, "\n".join(typed)
    assert "it is eight commands" in section
    # Of them, what is typed again for another Pi, where Scores are pushed to a class.
    assert [line for line in typed if "pi-1" in line and "push" not in line] == [
        "harmony enroll root@pi-1"
    ]
    several = parser().parse_args(["enroll", "root@pi-1", "root@pi-2"])
    assert several.destinations == ["root@pi-1", "root@pi-2"]


def test_there_are_commands() -> None:
    assert {each[1] for each in COMMANDS} >= {"keygen", "server", "enroll", "push-score"}

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
TYPED = [line for kind, block in BLOCKS if not kind for line in block.splitlines()]
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


def test_there_are_commands() -> None:
    assert {each[1] for each in COMMANDS} >= {"keygen", "server", "enroll", "push-score"}

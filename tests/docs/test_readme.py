"""README.md: its Score runs, and its commands can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from harmony_control.cli.parser import parser
from harmony_control.push.score_files import read_score_files
from harmony_core import Noop, Success
from harmony_core.plugins import Registry
from harmony_core.testing import FakePi, interpret_twice

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)
    for kind, block in BLOCKS
    if not kind
    for line in block.splitlines()
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


def test_there_are_commands() -> None:
    assert {each[1] for each in COMMANDS} >= {"keygen", "server", "add-agent", "push-score"}

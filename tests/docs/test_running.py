"""docs/running.md: its commands can be typed, and its service is one that systemd takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from harmony_control.cli.parser import parser

PAGE = (Path(__file__).parents[2] / "docs" / "running.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TYPED = [line for kind, block in BLOCKS if not kind for line in block.splitlines()]
INLINE = re.findall(r"`(harmony [^`]*)`", PAGE)
COMMANDS = [
    shlex.split(line, comments=True) for line in (*TYPED, *INLINE) if line.startswith("harmony ")
]
WHOLE = [each for each in COMMANDS if each[1] not in {"logs", "events"} or len(each) > 2]


@pytest.mark.parametrize("command", WHOLE, ids=shlex.join)
def test_every_command_can_be_typed(command: list[str]) -> None:
    assert parser().parse_args(command[1:]).module


def test_the_service_runs_a_command_that_can_be_typed_in_a_home_of_its_own() -> None:
    (unit,) = (block for kind, block in BLOCKS if kind == "ini")
    setting = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
    program, *arguments = shlex.split(setting["ExecStart"])
    assert Path(program).name == "harmony"
    assert parser().parse_args(arguments).module == "server"
    home = setting["Environment"].removeprefix("HARMONY_HOME=")
    assert home == f"/var/lib/{setting['StateDirectory']}"

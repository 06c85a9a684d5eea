"""docs/running.md: its commands can be typed, and its service runs one."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from harmony_control.cli.parser import parser

TREE = Path(__file__).parents[2]
PAGE = (TREE / "docs" / "running.md").read_text()
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
    unit = (TREE / "deploy" / "harmony-server.service").read_text()
    setting = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
    program, *arguments = shlex.split(setting["ExecStart"])
    assert Path(program).name == "harmony"
    assert parser().parse_args(arguments).module == "server"
    home = setting["Environment"].removeprefix("HARMONY_HOME=")
    assert home == f"/var/lib/{setting['StateDirectory']}"
    assert f"HARMONY_HOME={home}" in PAGE
    assert f"useradd --system {setting['User']}\n" in PAGE


def test_the_unit_that_is_copied_is_in_the_wheel() -> None:
    (copied,) = re.findall(
        r"^# cp \S+/site-packages/(\S+) /etc/systemd/system/$", PAGE, re.MULTILINE
    )
    project = tomllib.loads((TREE / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["deploy/harmony-server.service"] == copied

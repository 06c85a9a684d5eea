"""docs/rescue.md, roll-back.md, upgrade.md, volumes.md, offline.md: what they say can be typed, and is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from harmony_agent.cli import parser as parser_of_agent
from harmony_control.cli.parser import parser
from harmony_control.fleet_view.where import parse_where
from tests.docs import command_tables
from tests.docs.error_tables import CODES

from .fences import shell_in

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [
    DOCS / name for name in ("rescue.md", "roll-back.md", "upgrade.md", "volumes.md", "offline.md")
]


def typed_in(page: Path) -> list[list[str]]:
    inline = re.findall(r"`(harmony [^`]*)`", " ".join(page.read_text().split()))
    shown = [shlex.split(" ".join(each)) for each in shell_in(page)]
    return [*shown, *(shlex.split(each) for each in inline)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_can_be_typed(page: Path) -> None:
    commands = [each for each in typed_in(page) if each[0] == "harmony"]
    assert len(commands) >= (3 if page.stem == "offline" else 5)
    names = {name.removeprefix("harmony ") for name, _, _ in command_tables.commands(parser())}
    for command in commands:
        if len(command) == 2:
            assert command[1] in {"--version", *names}
            continue
        found = parser().parse_args(command[1:])
        if where := getattr(found, "where", None):
            parse_where(where)


def test_every_command_of_the_agent_can_be_typed() -> None:
    commands = [each for each in typed_in(DOCS / "rescue.md") if each[0].endswith("harmony-agent")]
    assert [each[1] for each in commands] == ["check", "reset-floor"]
    for command in commands:
        assert parser_of_agent().parse_args(command[1:]).command


def test_every_code_in_the_table_of_refusals_is_one() -> None:
    named = re.findall(r"\[(\w+)\]\(errors\.md#(\w+)\)", (DOCS / "rescue.md").read_text())
    assert len(named) > 6
    known = {each.code for each in CODES}
    for code, anchor in named:
        assert code in known
        assert anchor == code.lower()

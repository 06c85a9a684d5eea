"""docs/commands.md: every command with its options, as the parsers have them, and every exit code."""

from __future__ import annotations

import re

import pytest

from harmony_agent.cli import parser as parser_of_agent
from harmony_control.cli import exits
from harmony_control.cli.parser import parser as parser_of_operators
from tests.docs.command_tables import EXITS, PAGE, commands, page

TEXT = PAGE.read_text()
NAMES = [
    name for parser in (parser_of_operators, parser_of_agent) for name, _, _ in commands(parser())
]


def test_the_page_is_what_the_parsers_say() -> None:
    assert page() == TEXT, "run: python -m tests.docs.command_tables"


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_its_place(name: str) -> None:
    assert f"### {name}\n" in TEXT


def test_commands_below_commands_are_told_too() -> None:
    assert {"harmony push-score", "harmony trust init", "harmony-agent enroll"} <= set(NAMES)


def test_every_command_of_operators_says_it_in_json_in_the_same_way() -> None:
    for name, made, _ in commands(parser_of_operators()):
        words = name.split()[1:]
        (output,) = (each for each in made._actions if "-o" in each.option_strings)
        assert "json" in (output.choices or ()), words
        assert any("--json" in each.option_strings for each in made._actions), words


def test_every_exit_code_is_told_and_no_other() -> None:
    named = {value for name, value in vars(exits).items() if name.isupper() and name[0] != "_"}
    said = re.findall(r"(?:^|\s)(\d+) {3,}\S", exits.__doc__ or "")
    assert named <= EXITS.keys() == set(map(int, said))

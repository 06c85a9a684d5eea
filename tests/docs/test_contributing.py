"""CONTRIBUTING.md: its map names what is there, and the path of a push is the one that a push takes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from benchmarks.path_of_a_push import Side, record_one_push, write_tables

TREE = Path(__file__).parents[2]
PAGE = (TREE / "CONTRIBUTING.md").read_text()
MODULES = re.compile(r"^\| `(harmony_[\w/]+\.py)` \|", re.MULTILINE)


def test_every_folder_and_module_that_the_map_names_is_there() -> None:
    named = set(re.findall(r"`(harmony_[\w/]+(?:/|\.py))`", PAGE))
    assert len(named) > 100
    assert [path for path in sorted(named) if not (TREE / path).exists()] == []


def test_every_folder_of_the_agent_and_of_the_control_plane_is_on_the_map() -> None:
    folders = {
        str(found.parent.relative_to(TREE)) + "/"
        for package in ("harmony_agent", "harmony_control")
        for found in (TREE / package).glob("*/__init__.py")
    }
    assert folders <= set(re.findall(r"^\| `(harmony_[\w/]+/)` \|", PAGE, re.MULTILINE))


def test_what_is_to_be_looked_for_stands_in_its_module() -> None:
    rows = re.findall(r"^\| .* \| `(harmony_[\w/]+\.py)` \| `([^`]+)` \|$", PAGE, re.MULTILINE)
    assert len(rows) > 40
    missing = [
        (module, word)
        for module, word in rows
        if not re.search(rf"\b{word}\b", (TREE / module).read_text())
    ]
    assert missing == []


async def test_the_path_of_a_push_is_the_one_that_is_told(tmp_path: Path) -> None:
    _, command, agent = re.split(r"^The (?:command|agent), ", PAGE, flags=re.MULTILINE)
    by_command, by_agent = await record_one_push(tmp_path)
    assert _differences(MODULES.findall(command), by_command.modules) == []
    assert _differences(MODULES.findall(agent), by_agent.modules) == []


def test_no_module_is_told_twice_of_one_side() -> None:
    _, *sides = re.split(r"^The (?:command|agent), ", PAGE, flags=re.MULTILINE)
    for told in map(MODULES.findall, sides):
        assert sorted(set(told)) == sorted(told)


def test_the_tables_can_be_written_anew_and_keep_their_words(tmp_path: Path) -> None:
    page = tmp_path / "CONTRIBUTING.md"
    page.write_text(PAGE)
    _, *sides = re.split(r"^The (?:command|agent), ", PAGE, flags=re.MULTILINE)
    ran = [Side(dict.fromkeys(MODULES.findall(side), ())) for side in sides]
    write_tables(page, ran)
    assert page.read_text() == PAGE
    more = "harmony_agent/apply/removal.py"
    command, agent = ran
    write_tables(page, [Side({**command.functions, more: ()}), agent])
    added = set(page.read_text().splitlines()) - set(PAGE.splitlines())
    assert [bool(re.fullmatch(rf"\| `{more}` \| \w.* \|", line)) for line in added] == [True]


def _differences(told: Iterable[str], ran: Iterable[str]) -> list[str]:
    """What has to be put into the table, and what has to go from it."""
    gone = [f"does not run: {module}" for module in told if module not in set(ran)]
    return gone + [f"runs, and is not told: {module}" for module in ran if module not in set(told)]

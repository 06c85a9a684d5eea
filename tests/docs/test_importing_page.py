"""docs/importing.md, whose commands are run, and docs/import-flags.md, which is as the code has it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import import_tables
from tests.docs.fences import files_in, untested_in

PAGE = Path(__file__).parents[2] / "docs" / "importing.md"
COMMANDS = [
    (command, said)
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for each in re.split(r"^\$ ", block, flags=re.MULTILINE)
    for command, _, said in [each.partition("\n")]
    if command.startswith("harmony import ")
]


@pytest.mark.parametrize(("command", "said"), COMMANDS, ids=[each for each, _ in COMMANDS])
def test_each_command_prints_what_the_page_shows(tmp_path: Path, command: str, said: str) -> None:
    for name, content in files_in(PAGE).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m harmony_control.cli {command[8:]} 2>&1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, said)


def test_there_is_nothing_that_is_not_run() -> None:
    assert len(COMMANDS) == 5
    assert untested_in(PAGE) == []


def test_the_lists_are_what_the_code_says() -> None:
    assert import_tables.PAGE.read_text() == import_tables.page(), (
        "run: python -m tests.docs.import_tables"
    )

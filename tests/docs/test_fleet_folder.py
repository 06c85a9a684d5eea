"""docs/fleet-folder.md: its program is a fleet, and its commands can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from harmony_control.cli.parser import parser
from harmony_control.plan.folder import read_folder
from harmony_core.plugins import load

PAGE = (Path(__file__).parents[2] / "docs" / "fleet-folder.md").read_text()


def test_its_program_is_a_fleet(tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "fleet.py").write_text(program)
    found = read_folder(tmp_path, load())
    assert sorted(found.spec.devices) == ["pi-1", "pi-2", "pi-3"]
    assert list(found.class_scores["kiosk"]) == ["motd", "issue"]
    assert [each.soak for each in found.spec.classes["kiosk"].rollout.steps] == [600, 3600, 0]


def test_its_commands_can_be_typed() -> None:
    typed = [
        *re.findall(r"^\$ (harmony .*)$", PAGE, re.MULTILINE),
        *re.findall(r"`(harmony \w+ [^`]+)`", PAGE),
    ]
    assert len(typed) > 5
    for line in typed:
        assert parser().parse_args(shlex.split(line)[1:]).module

"""fleet.py: the same as fleet.yaml, and what is wrong with one is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from harmony_control.plan.folder import Folder, read_folder
from harmony_control.push.entries import serialize
from harmony_core.errors import HarmonyError, ScoreFileError
from harmony_core.plugins import load

from .ground import harmony

HEAD = (
    "from harmony_control import Class, DeviceConfig, Entry\nfrom harmony_scores import FileScore\n"
)
PROGRAM = (
    HEAD
    + """
motd = FileScore(path="/etc/motd", content="one")
fleet = "home"
devices = {
    "pi-1": DeviceConfig(labels={"role": "kiosk"}, without=["note"], scores={"own": motd}),
    "pi-2": DeviceConfig(),
}
classes = {
    "kiosk": Class(
        selector="role=kiosk",
        priority=3,
        scores={"motd": motd, "note": Entry(FileScore(path="/n", content=""), after=["motd"])},
        rollout={
            "canary": "ring=canary",
            "steps": [{"upto": "1%", "soak": "10m"}, 5, "100%"],
            "success": "90%",
            "deadline": "1h",
            "windows": [{"days": ["mon"], "begin": "22:00", "until": "04:00"}],
            "on_stop": "stay",
        },
    ),
}
"""
)
YAML = """
fleet: home
devices:
  pi-1: {labels: {role: kiosk}, without: [note], scores: [own.yaml]}
  pi-2: {}
classes:
  kiosk:
    selector: role=kiosk
    priority: 3
    scores: [kiosk.yaml]
    rollout:
      canary: ring=canary
      steps: [{upto: 1%, soak: 10m}, 5, 100%]
      success: 90%
      deadline: 1h
      windows: [{days: [mon], begin: "22:00", until: "04:00"}]
      on_stop: stay
"""
KIOSK = """
- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: one}}
- {id: note, kind: FileScore, after: [motd], spec: {path: /n, content: ""}}
"""


def read(folder: Path, text: str) -> Folder:
    (folder / "fleet.py").write_text(text)
    return read_folder(folder, load())


def serialized(folder: Folder) -> object:
    return [
        {
            name: [serialize(id_, each) for id_, each in entries.items()]
            for name, entries in of.items()
        }
        for of in (folder.class_scores, folder.device_scores)
    ]


def test_a_program_says_the_same_as_the_yaml(tmp_path: Path) -> None:
    (tmp_path / "yaml").mkdir()
    (tmp_path / "yaml" / "fleet.yaml").write_text(YAML)
    (tmp_path / "yaml" / "kiosk.yaml").write_text(KIOSK)
    (tmp_path / "yaml" / "own.yaml").write_text(KIOSK.splitlines()[1].replace("motd,", "own,", 1))
    yaml = read_folder(tmp_path / "yaml", load())
    program = read(tmp_path, PROGRAM)
    assert serialized(program) == serialized(yaml)
    left_out = {"devices": {"pi-1": {"scores"}}, "classes": {"kiosk": {"scores"}}}
    assert program.spec.model_dump(exclude=left_out) == yaml.spec.model_dump(exclude=left_out)
    assert program.spec.classes["kiosk"].rollout.steps[0].soak == 600


def test_what_lies_beside_it_can_be_imported_and_what_it_prints_is_not_what_the_command_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "attic_labels.py").write_text("LABELS = {'site': 'attic'}\n")
    found = read(
        tmp_path,
        f"{HEAD}from attic_labels import LABELS\nprint('hello')\n"
        "devices = {'pi-1': DeviceConfig(labels=LABELS)}\n",
    )
    assert found.spec.devices["pi-1"].labels == {"site": "attic"}
    assert capsys.readouterr().out == ""


def test_a_folder_with_both_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text(YAML)
    with pytest.raises(ScoreFileError, match="remove the other"):
        read(tmp_path, PROGRAM)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must define devices or classes"),
        ("clases = {}", "classes"),
        ("devices = 1", "devices must be a dictionary by name"),
        ("devices = {1: DeviceConfig()}", "devices[1]: a name is a text"),
        ("devices = {'pi-1': {}}", "devices['pi-1'] is of type dict; write DeviceConfig(…)"),
        ("devices = {'pi-1': Class}", "devices['pi-1'] is of type"),
        ("devices = {'PI 1': DeviceConfig()}", "devices"),
        ("devices = {'pi-1': DeviceConfig(labels={'a b': 'c'})}", "a label's name"),
        ("devices = {'pi-1': DeviceConfig(labels={'a': 1})}", "labels"),
        (
            "devices = {'pi-1': DeviceConfig(labels={'slot': 'x'})}",
            "slot: a slot is a whole number",
        ),
        ("devices = {'pi-1': DeviceConfig(lables={})}", "line 3: TypeError"),
        ("devices = {'pi-1': DeviceConfig(without=['X'])}", "without"),
        ("devices = {'pi-1': DeviceConfig(scores=[])}", "devices['pi-1']: scores must be"),
        ("devices = {'pi-1': DeviceConfig(scores={'a': 1})}", "scores['a'] is of type int"),
        ("devices = {'pi-1': DeviceConfig(scores={'a': FileScore})}", "call it: FileScore(…)"),
        ("classes = []", "classes must be a dictionary"),
        ("classes = {'kiosk': Class(scores={})}", "line 3: TypeError"),
        ("classes = {'kiosk': Class(selector='==', scores={})}", "cannot be read from character"),
        ("classes = {'k': Class(selector='a', scores={}, priority=2000)}", "priority"),
        ("classes = {'k': Class(selector='a', scores={}, priority='1')}", "priority"),
        ("classes = {'K': Class(selector='a', scores={})}", "classes"),
        (
            "classes = {'k': Class(selector='a', scores={'A': FileScore(path='/a', content='')})}",
            "scores['A']",
        ),
        (
            "classes = {'k': Class(selector='a', scores={1: FileScore(path='/a', content='')})}",
            "an id is a text",
        ),
        (
            "classes = {'k': Class(selector='a', scores={}, rollout={'step': []})}",
            "line 3: rollout",
        ),
        ("classes = {'k': Class(selector='a', scores={}, rollout={'steps': [{}]})}", "upto"),
        (
            "classes = {'k': Class(selector='a', scores={}, rollout={'deadline': 'soon'})}",
            "line 3: rollout: deadline",
        ),
        ("classes = {'k': Class(selector='a', scores={}, rollout={'success': 101})}", "success"),
        ("classes = {'k': Class(selector='a', scores={}, rollout={'on_stop': 'cry'})}", "on_stop"),
        ("classes = {'k': Class(selector='a', scores={}, rollout=7)}", "rollout"),
        (
            "classes = {'k': Class(selector='a', scores={'m': FileScore(path='x', content='')})}",
            "line 3: FileScore: path",
        ),
        ("fleet = 7\nclasses = {}", "fleet"),
        ("raise SystemExit(3)", "line 3: it ends the program; fleet.py only defines"),
        ("1/0", "line 3: ZeroDivisionError"),
        ("classes = {", "line 3: SyntaxError"),
        ("import nowhere_at_all", "line 3: ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(HarmonyError) as caught:
        read(tmp_path, HEAD + text)
    assert told in caught.value.message
    assert "fleet.py" in caught.value.message


async def test_a_program_to_begin_with_reads_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert (await harmony(None, "init", str(folder), "--python")).status == 0
    found = read_folder(folder, load())
    assert list(found.class_scores["kiosk"]) == ["motd"]
    again = await harmony(None, "init", str(folder))
    assert again.status == 2
    assert "is there already" in again.err
    assert [each.name for each in folder.iterdir()] == ["fleet.py"]

"""``harmony new``: each folder is whole, overwrites nothing, and converges as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.policy_toml import PolicyTable
from harmony_control.cli import main
from harmony_control.cli.parser import parser
from harmony_control.push.entries import serialize
from harmony_control.score_files.read import read_score_files
from harmony_core import Noop, Success
from harmony_core.interpretation import interpret
from harmony_core.plugins import Registry
from harmony_core.testing import FakePi, inventory, make_stage
from harmony_core.wire.ordering import graph_faults
from harmony_scores import PackageScore, harmony_scores
from tests.box.layers import built_wheel
from tests.docs.command_tables import commands

REGISTRY = Registry(harmony_scores())
SCORE_FILES = {
    "kiosk": "kiosk.yaml",
    "web-app": "web.yaml",
    "mqtt": "mqtt.yaml",
    "compose": "compose.yaml",
}
READ = """
import sys
from harmony_control.score_files.read import read_score_files
from harmony_core.plugins import load

registry = load()
assert not registry.errors, registry.errors
print(read_score_files(sys.argv[1:], registry))
"""


def make(template: str, folder: Path) -> Path:
    assert main(["new", template, str(folder)]) == 0
    return folder


def test_every_template_can_be_asked_for_and_says_what_it_is(tmp_path: Path) -> None:
    shipped = {
        each.name for each in (resources.files("harmony_control") / "templates").iterdir()
    } - {"__pycache__"}
    (made,) = (each for name, each, _ in commands(parser()) if name == "harmony new")
    (template,) = (each for each in made._actions if each.dest == "template")
    names = [str(each) for each in template.choices or ()]
    assert {each.replace("-", "_") for each in names} == shipped
    for each in names:
        assert (make(each, tmp_path / each) / "README.md").read_text().startswith("# ")


def test_nothing_is_overwritten_and_nothing_is_half_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mqtt.yaml").write_text("mine")
    assert main(["new", "mqtt", str(tmp_path)]) == 2
    assert "mqtt.yaml is there already, and is left as it is" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["mqtt.yaml"]
    (tmp_path / "mqtt.yaml").unlink()
    (tmp_path / "README.md").symlink_to(tmp_path / "nowhere")
    assert main(["new", "mqtt", str(tmp_path)]) == 2
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").write_text("")
    assert main(["new", "mqtt", str(tmp_path / "file" / "below")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("template", SCORE_FILES)
async def test_what_is_written_converges_within_what_a_device_allows(
    tmp_path: Path, template: str
) -> None:
    file = str(make(template, tmp_path) / SCORE_FILES[template])
    entries = read_score_files([file], REGISTRY)
    assert graph_faults([serialize(score_id, each) for score_id, each in entries.items()]) == {}
    jobs = "any" if template == "kiosk" else "none"
    policy = DevicePolicy("/etc/harmony", rules=PolicyTable(preset="open", jobs=jobs))
    pi, left = FakePi(), dict(entries)
    while left:
        score_id = next(each for each in left if not set(left[each].after) & left.keys())
        score = left.pop(score_id).score
        # The Pi in memory has every package.
        for wanted in (Noop if isinstance(score, PackageScore) else Success, Noop):
            stage = make_stage(pi.offers, policy=policy)
            outcome = (await interpret(score, inventory(), stage)).outcome
            assert isinstance(outcome, wanted), (score_id, outcome)


def test_a_broker_for_others_is_written_there_as_well(tmp_path: Path) -> None:
    file = make("mqtt", tmp_path) / "mqtt.yaml"
    file.write_text(file.read_text().replace("#: ", ""))
    entries = read_score_files([str(file)], REGISTRY)
    assert set(entries) == {"mqtt", "mqtt-config", "mqtt-data", "mqtt-passwords"}
    spec = serialize("mqtt", entries["mqtt"]).spec
    assert len(spec["mounts"]) == 2


def test_a_kind_of_ones_own_is_found_where_it_is_installed_and_passes_its_tests(
    tmp_path: Path,
) -> None:
    folder, site = make("python-score", tmp_path / "mine"), tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    wheel = str(built_wheel(folder))
    subprocess.run([*pip, "--no-deps", "--no-index", "--target", str(site), wheel], check=True)
    for arguments, said in (
        (["-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"], "3 passed"),
        (["-c", READ, "greeting.yaml"], "GreetingScore(words='Hello.')"),
    ):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert said in done.stdout

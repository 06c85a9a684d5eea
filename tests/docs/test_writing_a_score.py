"""docs/writing-a-score.md, followed to the letter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.box.layers import built_wheel

from .fences import files_in, shell_in, untested_in

TREE = Path(__file__).parents[2]
PAGE = TREE / "docs" / "writing-a-score.md"
READ = """
import sys
from harmony_control.score_files.read import read_score_files
from harmony_core.plugins import load

registry = load()
for file in sys.argv[1:]:
    for score_id, entry in read_score_files([file], registry).items():
        print(score_id, repr(entry.score))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the page, with itself installed into ``site``."""
    package = tmp_path_factory.mktemp("harmony-sign")
    for name, content in files_in(PAGE).items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(content)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    site, wheel = str(package / "site"), str(built_wheel(package))
    subprocess.run([*pip, "--no-deps", "--no-index", "--target", site, wheel], check=True)
    return package


def python(package: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=package,
        env={**os.environ, "PYTHONPATH": str(package / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_block_of_code_is_run() -> None:
    assert untested_in(PAGE) == []


def test_the_tree_that_is_drawn_is_the_one_that_is_made() -> None:
    for name in ("pyproject.toml", "src/harmony_sign/__init__.py", "src/harmony_sign/sign.py"):
        assert name in files_in(PAGE)


def test_its_tests_pass(package: Path) -> None:
    assert " passed" in python(package, "-m", "pytest", "-q", "-W", "error", "tests")


def test_both_files_of_scores_say_the_same(package: Path) -> None:
    one, other = python(package, "-c", READ, "signs.py", "signs.yaml").splitlines()
    assert one == other
    assert one.startswith("sign SignScore(room='Room 7', people=('Ada', 'Grace')")


def test_the_program_that_pushes_is_typed_as_a_push_to_a_pi(package: Path) -> None:
    program = files_in(PAGE)["push_signs.py"]
    assert "fleet.device(" in program
    python(package, "-c", "import push_signs; assert push_signs.main")


def test_the_commands_that_are_shown_exist() -> None:
    shown = {(words[0], words[1]) for words in shell_in(PAGE) if words[0].startswith("harmony")}
    assert shown >= {("harmony", "kinds"), ("harmony", "push-score"), ("harmony-agent", "check")}
    modules = {"harmony": "harmony_control.cli", "harmony-agent": "harmony_agent.cli"}
    for program, command in shown:
        arguments = [sys.executable, "-m", modules[program], command, "--help"]
        done = subprocess.run(arguments, capture_output=True, check=False, cwd=TREE)
        assert done.returncode == 0, done.stderr

"""What `make wheel` makes: the same bytes everywhere, locks that pip keeps to, and true lists of contents."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.box.layers import TREE

pytestmark = pytest.mark.timeout(180)
ENDS = ("agent", "control", "serve", "pkcs11")
"""What is installed somewhere, by the name of its lock."""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wheel(tmp_path_factory.mktemp("one"), umask=0o022)


def make_wheel(directory: Path, *, umask: int) -> Path:
    """`make wheel` in a clone in *directory*, with the tools of this environment. Return its dist."""
    tree = directory / "clone"
    run(["git", "clone", "--quiet", "--no-hardlinks", str(TREE), str(tree)], umask=umask)
    venv = f"VENV={sys.prefix}"
    run(["make", "wheel", venv, "-o", f"{sys.prefix}/.installed"], umask=umask, cwd=tree)
    return tree / "dist"


def run(command: list[str], *, umask: int = 0o022, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, umask=umask, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_lock_is_looked_at() -> None:
    found = {path.stem for path in (TREE / "requirements").glob("*.lock")}
    assert found == {*ENDS, "build", "dev"}


def pinned(lock: str) -> set[tuple[str, str]]:
    return set(re.findall(r"^([\w.-]+)==([^\s;]+)", lock, re.MULTILINE))


def read_requirements(*names: str) -> set[tuple[str, str]]:
    texts = [(TREE / "requirements" / f"{name}.lock").read_text() for name in names]
    return pinned("".join(texts))


def test_another_clone_at_another_time_gives_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    other = make_wheel(tmp_path / "quite" / "elsewhere", umask=0o077)
    for path in other.parent.rglob("*.py"):
        os.utime(path, (1, 10**9))
    run(["make", "wheel", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.installed"], cwd=other.parent)
    ours, theirs = (
        {path.name: path.read_bytes() for path in each.iterdir()} for each in (dist, other)
    )
    assert len(ours) == 10
    assert ours == theirs


@pytest.mark.parametrize("end", ENDS)
def test_the_list_of_what_is_in_it_is_valid_and_says_what_is_installed(
    dist: Path, end: str
) -> None:
    text = (dist / f"harmony-{end}.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    listed = {(each["name"], each["version"]) for each in bom["components"]}
    installed = pinned((dist / f"{end}.lock").read_text() + (dist / "build.lock").read_text())
    root = bom["metadata"]["component"]
    assert listed | {(root["name"], root["version"])} == installed
    assert len(listed) == len(bom["components"]) == len(installed) - 1


@pytest.mark.parametrize("end", [*ENDS, "build"])
def test_what_is_installed_is_what_was_tested(end: str) -> None:
    assert read_requirements(end)
    assert read_requirements(end) <= read_requirements("dev")


def test_pip_refuses_another_wheel_of_the_same_name(dist: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(dist, tmp_path / "dist"))
    lock = copy / "ours.lock"
    lock.write_text("".join((copy / "agent.lock").read_text().splitlines(keepends=True)[:3]))
    download = [sys.executable, "-m", "pip", "download", "--no-index", "--no-deps"]
    command = [*download, "--require-hashes", "--dest", str(tmp_path / "out"), "-r", str(lock)]
    run(command)
    (wheel,) = copy.glob("*.whl")
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    shutil.rmtree(tmp_path / "out")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr

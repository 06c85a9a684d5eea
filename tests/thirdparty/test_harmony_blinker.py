"""A third party's package: built, installed beside Harmony, and tested as its author tests it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harmony_scores import harmony_scores
from tests.box.layers import built_wheel

BLINKER = Path(__file__).with_name("harmony_blinker")
LIST = """
from harmony_core.plugins import load
registry = load()
print(*registry.kinds, *registry.errors)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory into which the wheel is installed, and nothing else."""
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    wheel = str(built_wheel(BLINKER))
    subprocess.run([*pip, "--no-deps", "--no-index", "--target", str(site), wheel], check=True)
    return site


def python(site: Path, *arguments: str, cwd: Path = BLINKER) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_kind_stands_beside_ours_without_our_knowing(site: Path, tmp_path: Path) -> None:
    kinds = sorted({"BlinkerScore", *(score.kind for score in harmony_scores())})
    assert python(site, "-c", LIST, cwd=tmp_path).split() == kinds
    assert "BlinkerScore" not in python(tmp_path, "-c", LIST, cwd=tmp_path)


def test_its_own_tests_pass_where_it_is_installed(site: Path) -> None:
    assert " passed" in python(site, "-m", "pytest", "-q", "-p", "no:cacheprovider")

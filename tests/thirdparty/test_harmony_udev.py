"""A third party's capability: built, installed beside Harmony, and tested as its author tests it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.box.layers import built_wheel

UDEV = Path(__file__).with_name("harmony_udev")


def test_its_own_tests_pass_where_it_is_installed(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    wheel = str(built_wheel(UDEV))
    subprocess.run([*pip, "--no-deps", "--no-index", "--target", str(tmp_path), wheel], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=UDEV,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout

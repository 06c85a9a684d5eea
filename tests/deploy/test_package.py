"""What `harmony enroll` carries to a device, where Harmony itself was installed from a wheel."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harmony_control.package import package_of, package_of_ours
from harmony_core.errors import ConfigError
from tests.box.layers import TREE, built_wheel

UNPACK = """
import pathlib, sys
from harmony_control.package import package_of_ours
for name, content in package_of_ours().files.items():
    (pathlib.Path(sys.argv[1]) / name).write_bytes(content)
"""


def run(*arguments: str, path: Path | None = None) -> str:
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(120)
def test_what_is_installed_is_packed_again_and_pip_takes_it_for_the_same(tmp_path: Path) -> None:
    wheel = built_wheel(TREE)
    run("-m", "venv", "--without-pip", str(tmp_path / "here"))
    install = ["-m", "pip", "--python", str(tmp_path / "here"), "install", "--quiet"]
    run(*install, "--no-index", "--no-deps", str(wheel))
    (site,) = tmp_path.glob("here/lib/python3*/site-packages")
    given = tmp_path / "given"
    given.mkdir()
    run("-c", UNPACK, str(given), path=site)

    assert {path.name for path in given.iterdir()} == {wheel.name, "agent.lock", "build.lock"}
    for name in ("agent.lock", "build.lock"):
        assert (TREE / "requirements" / name).read_text() in (given / name).read_text()
    ours = given / "ours.lock"
    ours.write_text("".join((given / "agent.lock").read_text().splitlines(keepends=True)[:3]))
    run("-m", "venv", "--without-pip", str(tmp_path / "there"))
    install[3] = str(tmp_path / "there")
    run(*install, "--no-index", "--no-deps", "--require-hashes", "-r", str(ours))
    # Whichever was installed, the other is no other build.
    forget_broken = str(TREE / "harmony_control" / "_forget_broken.py")
    for environment in ("here", "there"):
        for each in (wheel, given / wheel.name):
            assert run(forget_broken, str(tmp_path / environment), str(each)) == ""


def test_another_file_than_a_wheel_of_harmony_is_refused(tmp_path: Path) -> None:
    wheel = built_wheel(TREE)
    assert set(package_of(wheel).files) == {wheel.name, "agent.lock", "build.lock"}
    renamed = tmp_path / "other-1.0-py3-none-any.whl"
    renamed.write_bytes(wheel.read_bytes())
    with pytest.raises(ConfigError, match="has not the name of a wheel of Harmony"):
        package_of(renamed)
    renamed.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="is no wheel of Harmony"):
        package_of(renamed)


def test_an_installation_to_be_edited_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the locks, and in place of the modules a path of this machine."""
    files = ["_editable_impl_harmony.pth", "harmony_agent/deploy/agent.lock"]
    installed = SimpleNamespace(files=files, version="0.1.0")

    def find(name: str) -> SimpleNamespace:
        assert name == "harmony"
        return installed

    monkeypatch.setattr(importlib.metadata, "distribution", find)
    with pytest.raises(ConfigError, match="runs from a working tree; give one with --wheel"):
        package_of_ours()

"""What `harmony enroll` carries to a device, where Harmony itself was installed from a wheel."""

from __future__ import annotations

import base64
import hashlib
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


def test_what_is_not_as_it_was_installed_is_not_packed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("harmony_core/__init__.py", "harmony_agent/deploy/agent.lock"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("as it was\n")
    info = tmp_path / "harmony-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: harmony\nVersion: 0.1.0\n")
    digest = hashlib.sha256(b"as it was\n").digest()
    written = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    (info / "RECORD").write_text(
        f"harmony_core/__init__.py,sha256={written},10\nharmony_agent/deploy/agent.lock,sha256={written},10\n"
    )
    found = importlib.metadata.Distribution.at(info)
    monkeypatch.setattr(importlib.metadata, "distribution", {"harmony": found}.__getitem__)
    (tmp_path / "harmony_core/__init__.py").write_text("as it wa")
    with pytest.raises(ConfigError, match=r"__init__\.py is not as it was installed"):
        package_of_ours()
    (tmp_path / "harmony_core/__init__.py").unlink()
    with pytest.raises(ConfigError, match="make install"):
        package_of_ours()

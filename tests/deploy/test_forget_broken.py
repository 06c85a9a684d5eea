"""What is not whole in an environment is installed anew, and the rest is left alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.box.layers import TREE, built_wheel

pytestmark = pytest.mark.timeout(180)

SCRIPT = TREE / "harmony_control" / "_forget_broken.py"


@pytest.fixture(scope="module")
def wheel() -> Path:
    return built_wheel(TREE)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """An environment in which Harmony is installed, alone."""
    path = tmp_path_factory.mktemp("installed") / "environment"
    run("-m", "venv", "--without-pip", str(path))
    install(path, wheel)
    return path


@pytest.fixture
def environment(tmp_path: Path, installed: Path) -> Path:
    """Such a one for each test, to damage."""
    return shutil.copytree(installed, tmp_path / "environment", symlinks=True)


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def install(environment: Path, wheel: Path) -> None:
    pip = ["-m", "pip", "--python", str(environment), "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel))


def forget_broken(environment: Path, wheel: Path) -> str:
    return run("-I", str(SCRIPT), str(environment), str(wheel))


def site(environment: Path) -> Path:
    (found,) = environment.glob("lib/python3*/site-packages")
    return found


def record(environment: Path) -> Path:
    (found,) = site(environment).glob("harmony-*.dist-info/RECORD")
    return found


def test_what_is_whole_is_left_alone(environment: Path, wheel: Path) -> None:
    before = record(environment).read_bytes()
    assert forget_broken(environment, wheel) == ""
    assert record(environment).read_bytes() == before


def test_where_there_is_no_environment_there_is_nothing_to_do(tmp_path: Path, wheel: Path) -> None:
    assert forget_broken(tmp_path / "none", wheel) == ""


def delete_module(environment: Path) -> None:
    (site(environment) / "harmony_agent" / "agent.py").unlink()


def empty_module(environment: Path) -> None:
    # As after a power cut: the name was written, and the content was not.
    (site(environment) / "harmony_agent" / "agent.py").write_bytes(b"")


def delete_program(environment: Path) -> None:
    (environment / "bin" / "harmony-agent").unlink()


def delete_record(environment: Path) -> None:
    record(environment).unlink()


def empty_record(environment: Path) -> None:
    record(environment).write_bytes(b"")


def unpack_only(environment: Path) -> None:
    # pip was ended when all files of the wheel were there, and no programs yet.
    (environment / "bin" / "harmony-agent").unlink()
    (record(environment).parent / "INSTALLER").unlink()
    lines = record(environment).read_text().splitlines(keepends=True)
    of_wheel = (each for each in lines if not each.startswith("..") and "/INSTALLER" not in each)
    record(environment).write_text("".join(of_wheel))


@pytest.mark.parametrize(
    "damage",
    [delete_module, empty_module, delete_program, delete_record, empty_record, unpack_only],
)
def test_what_is_damaged_is_written_anew(
    environment: Path, wheel: Path, damage: Callable[[Path], None]
) -> None:
    damage(environment)
    assert "installing harmony" in forget_broken(environment, wheel)
    install(environment, wheel)
    assert forget_broken(environment, wheel) == ""
    assert (environment / "bin" / "harmony-agent").exists()
    assert (site(environment) / "harmony_agent" / "agent.py").stat().st_size > 0


def test_another_build_of_the_same_version_is_not_taken_for_it(
    environment: Path, wheel: Path
) -> None:
    module = site(environment) / "harmony_agent" / "agent.py"
    line = next(
        each for each in record(environment).read_text().splitlines() if "agent/agent.py," in each
    )
    changed = b"# as another build has it\n"
    module.write_bytes(changed)
    hashed = run(
        "-c",
        "import base64, hashlib, sys;"
        "print(base64.urlsafe_b64encode(hashlib.sha256(sys.argv[1].encode()).digest()).decode().rstrip('='))",
        changed.decode(),
    ).strip()
    text = (
        record(environment)
        .read_text()
        .replace(line, f"harmony_agent/agent.py,sha256={hashed},{len(changed)}")
    )
    record(environment).write_text(text)
    assert "installing harmony" in forget_broken(environment, wheel)


def test_files_that_another_installation_has_left_are_not_taken_for_installed(
    environment: Path, wheel: Path
) -> None:
    # All that the wheel has is there, and nothing tells that it is ours.
    lines = record(environment).read_text().splitlines(keepends=True)
    record(environment).write_text("".join(each for each in lines if "_core/" not in each))
    assert "installing harmony" in forget_broken(environment, wheel)

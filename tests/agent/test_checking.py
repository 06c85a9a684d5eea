"""`harmony-agent check` on this machine: it says what there is, whoever has let the device in."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

from harmony_agent.check import check
from harmony_control.store.home import write_toml
from tests.nats import serving


async def test_a_device_that_nobody_has_let_in_yet_is_told_what_it_could_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await check(tmp_path / "agent.toml") == 2
    said = capsys.readouterr().out
    assert "harmony enroll root@HOST" in said
    assert "FileSystemHost      offered" in said
    assert "FileScore" in said


async def test_a_key_that_is_not_let_in_is_told_from_one_that_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(tmp_path, "pi-1") as bus:
        mine = bus.home.agent_toml("pi-1")
        mine.chmod(0o600)
        await check(mine)
        assert "reachable, and this device is authenticated" in capsys.readouterr().out
        stranger = tomllib.loads(mine.read_text())
        stranger["nats"]["seed"] = f"SU{'A' * 56}"
        theirs = tmp_path / "theirs.toml"
        await asyncio.to_thread(write_toml, theirs, stranger)
        theirs.chmod(0o600)
        assert await check(theirs) == 1
        assert "harmony enroll root@HOST --replace" in capsys.readouterr().out


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away, which only root may")
@pytest.mark.parametrize("owner", [1000, 65534])
async def test_a_configuration_that_belongs_to_somebody_else_is_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], owner: int
) -> None:
    """Whoever owns it chooses the operators whose word counts here."""
    async with serving(tmp_path, "pi-1") as bus:
        mine = bus.home.agent_toml("pi-1")
        mine.chmod(0o600)
        os.chown(mine, owner, owner)
        assert await check(mine) == 2
        assert f"run: chown root:root {mine}" in capsys.readouterr().out
        os.chown(mine, 0, 0)
        await check(mine)
        assert "reachable, and this device is authenticated" in capsys.readouterr().out


async def test_who_may_not_look_is_told_what_to_do_and_a_damaged_file_is_not_called_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "agent.toml"
    damaged.write_text("not toml")
    damaged.chmod(0o600)
    assert await check(damaged) == 2
    said = capsys.readouterr().out
    assert f"configuration NOT USABLE: {damaged} is not TOML" in said
    assert "harmony add-agent ID --replace" in said
    assert await check(tmp_path / "none.toml") == 2
    assert "configuration MISSING" in capsys.readouterr().out


def test_a_check_by_somebody_who_is_not_root_ends_without_a_traceback() -> None:
    # Not below pytest's own directory, which is closed to others as a whole.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        closed = Path(directory) / "closed"
        closed.mkdir(0o700)
        (closed / "podman.sock").touch()
        program = (
            "import os\n"
            "from harmony_pi_topology.common.presence import is_there\n"
            "from pathlib import Path\n"
            "if os.getuid() == 0:\n"
            "    os.setresgid(65534, 65534, 65534)\n"
            "    os.setresuid(65534, 65534, 65534)\n"
            "else:\n"
            f"    os.chmod({str(closed)!r}, 0)\n"
            f"print(is_there(Path({str(closed)!r}) / 'podman.sock'))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        closed.chmod(0o700)
    assert done.stdout.strip() == "True", done.stderr

"""A bare Pi becomes a device of the fleet by one command over ssh, and comes with a key of its own."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.box import Box
from tests.box.layers import built_wheel
from tests.fleet.ground import AGENT, TREE, URL, ControlPlane


@pytest.fixture(scope="module")
def wheel() -> Path:
    return built_wheel(TREE)


@pytest.fixture
def bare(boot: Callable[[], Box]) -> Box:
    """A Pi on which nothing of ours was ever started."""
    pi = boot()
    pi.run(["rm", "-f", f"/etc/systemd/system/{AGENT}"])
    return pi


def ssh_to(pi: Box, directory: Path) -> str:
    """A command that is to *pi* what ssh is to a Pi on the network."""
    path = directory / "ssh"
    path.write_text(f'#!/bin/sh\nexec {shlex.join(pi.inside(["sh", "-c"]))} "$2"\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("is_installed", [True, False])
async def test_one_command_installs_lets_in_and_starts(
    plane: ControlPlane, bare: Box, wheel: Path, tmp_path: Path, is_installed: bool
) -> None:
    if not is_installed:
        bare.run(["rm", "/opt/harmony/bin/harmony-agent"])
    ssh = ssh_to(bare, tmp_path)
    said = await plane.harmony(
        *("enroll", f"root@{bare.name}", "--url", URL, "--ssh", ssh, "--wheel", str(wheel))
    )
    assert said.status == 0, said.err + said.out
    assert ("is installed already" in said.out) is is_installed
    assert f"{bare.name} is enrolled and online" in said.out
    assert bare.text("systemctl", "is-enabled", AGENT) == "enabled"
    told = await plane.harmony("push-score", bare.name, "-", stdin=MOTD)
    assert told.status == 0, told.err
    assert bare.read("/etc/motd") == b"hello\n"
    seed = bare.text("sed", "-n", 's/^seed = "\\(.*\\)"/\\1/p', "/etc/harmony/agent.toml")
    assert seed.startswith("SU")
    kept = [path for path in plane.home.root.rglob("*") if path.is_file()]
    assert [path for path in kept if seed.encode() in path.read_bytes()] == []


MOTD = '- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: "hello\\n"}}\n'


async def test_again_without_replace_changes_nothing_and_says_why(
    plane: ControlPlane, bare: Box, wheel: Path, tmp_path: Path
) -> None:
    command = (
        *("enroll", f"root@{bare.name}", "--url", URL, "--ssh", ssh_to(bare, tmp_path)),
        *("--wheel", str(wheel)),
    )
    assert (await plane.harmony(*command)).status == 0
    before = bare.read("/etc/harmony/agent.toml")
    said = await plane.harmony(*command)
    assert said.status == 2
    assert f"{bare.name} is enrolled" in said.err
    assert bare.read("/etc/harmony/agent.toml") == before
    assert (await plane.harmony(*command, "--replace")).status == 0
    assert bare.read("/etc/harmony/agent.toml") != before


async def test_what_cannot_be_reached_is_said_by_ssh_and_by_us(
    plane: ControlPlane, wheel: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "ssh"
    broken.write_text("#!/bin/sh\necho 'ssh: no route to host' >&2\nexit 255\n")
    broken.chmod(0o755)
    said = await plane.harmony(
        *("enroll", "root@pi-away", "--url", URL, "--ssh", str(broken), "--wheel", str(wheel))
    )
    assert said.status == 4
    assert "no route to host" in said.err
    assert "root@pi-away cannot be reached" in said.err


async def test_a_device_without_what_is_needed_says_what(
    plane: ControlPlane, bare: Box, wheel: Path, tmp_path: Path
) -> None:
    bare.run(["sh", "-c", "rm /usr/bin/python3"])
    said = await plane.harmony(
        *("enroll", f"root@{bare.name}", "--url", URL, "--ssh", ssh_to(bare, tmp_path)),
        *("--wheel", str(wheel)),
    )
    assert said.status == 2
    assert "python3 is older than 3.11, or missing" in said.err

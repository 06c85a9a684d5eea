"""The test bed itself: what other tests take for granted."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.box import Bed, Box

TREE = Path(__file__).parents[2]


def test_systemd_is_what_runs_the_box(pi: Box) -> None:
    assert pi.read("/proc/1/comm") == b"systemd\n"
    assert pi.text("systemctl", "is-system-running") == "running"
    assert "systemd 257" in pi.text("systemctl", "--version")


def test_an_image_is_pulled_from_the_registry_and_its_port_is_reached(bed: Bed, pi: Box) -> None:
    image = bed.registry.push_busybox("box/hello", "1", page="from a box\n")
    pi.run(["podman", "run", "-d", "--name", "hello", "-p", "8080:80", image])
    pi.wait_for(lambda: _page(f"http://{pi.address}:8080/") == "from a box\n")


def _page(url: str) -> str | None:
    try:
        return httpx.get(url, trust_env=False).text
    except httpx.TransportError:
        return None


def test_files_outlive_a_reboot_and_that_everything_is_killed(boot: Callable[[], Box]) -> None:
    pi = boot()
    first = pi.text("systemctl", "show", "-p", "UserspaceTimestampMonotonic")
    pi.write("/etc/kept", "over a reboot")
    pi.reboot()
    assert pi.read("/etc/kept") == b"over a reboot"
    assert pi.text("systemctl", "show", "-p", "UserspaceTimestampMonotonic") != first
    pi.write("/etc/kept", "over a kill")
    pi.power_cut()
    pi.power_on()
    assert pi.read("/etc/kept") == b"over a kill"


def test_what_is_killed_in_one_box_lives_on_in_another(boot: Callable[[], Box], pi: Box) -> None:
    """systemd kills all of a unit's control group, so no two boxes may have the same one."""
    other = boot()
    for each in (pi, other):
        each.run(["systemd-run", "--unit=same", "sleep", "infinity"])
    pi.run(["systemctl", "kill", "--signal=KILL", "same.service"])
    pi.wait_for(lambda: "sleep" not in pi.text("ps", "-e", "-o", "comm="))
    assert other.text("systemctl", "is-active", "same.service") == "active"


def test_a_pulled_cable_is_noticed_and_put_back(pi: Box) -> None:
    assert _reached(pi)
    pi.cut_network()
    assert not _reached(pi)
    pi.restore_network()
    pi.wait_for(lambda: _reached(pi))


def _reached(pi: Box) -> bool:
    """Whether the box's kernel answers, if only to say that nobody listens."""
    try:
        socket.create_connection((pi.address, 9), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def test_the_agent_of_this_tree_is_installed(pi: Box) -> None:
    assert pi.text("/opt/harmony/bin/harmony-agent", "version")
    assert "ExecStart=/opt/harmony/bin/harmony-agent" in pi.text(
        "systemctl", "cat", "harmony-agent.service"
    )


LEFT = """
import os, subprocess, sys
from tests.box import Bed
bed = Bed().__enter__()
pi = bed.boot("pi-1")
bed.registry
print(bed.name, pi.pid, flush=True)
{end}
"""


def _ended_by(end: str) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", LEFT.format(end=end)],
        cwd=TREE,
        capture_output=True,
        text=True,
        check=False,
    )
    name, pid = done.stdout.split()[-2:]
    return name, int(pid)


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_bed_that_ends_leaves_nothing() -> None:
    name, pid = _ended_by("bed.__exit__()")
    assert not _is_running(pid)
    assert not Path(f"/run/netns/{name}").exists()
    assert name not in Path("/proc/mounts").read_text()


def test_a_bed_whose_owner_is_killed_takes_its_boxes_along(bed: Bed) -> None:
    _, pid = _ended_by("os.kill(os.getpid(), 9)")
    for _ in range(200):
        if not _is_running(pid):
            return
        time.sleep(0.05)
    raise AssertionError("the box outlives its owner")

"""SysctlScore: what its programs do to the settings of a real kernel, in a network of their own.

The whole of it, by systemd, is in `test_composites`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from harmony_scores.sysctl import SET, UNSET

FORWARD = "net/ipv4/ip_forward"
REDIRECTS = "net/ipv4/conf/all/accept_redirects"
TTL = "net/ipv4/ip_default_ttl"
PORTS_OF_ALL = "net/ipv4/ip_unprivileged_port_start"
PORTS_OF_CLIENTS = "net/ipv4/ip_local_port_range"


class Kernel:
    """A network of its own, whose settings are nobody else's; and a folder for what is noted."""

    def __init__(self, root: Path, process: int) -> None:
        self.root = root
        (root / "run").mkdir()
        self._enter = ("nsenter", "--target", str(process), "--net")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._enter, *command],
            env={**os.environ, "ROOT": str(self.root)},
            capture_output=True,
            text=True,
            check=False,
        )

    def set(self, *words: str, name: str = "it") -> subprocess.CompletedProcess[str]:
        return self._does(SET, name, *words)

    def unset(self, name: str = "it") -> subprocess.CompletedProcess[str]:
        return self._does(UNSET, name)

    def _does(self, text: str, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("/bin/sh", "-eu", "-c", text, "sh", name, "/etc/none", *words)

    def write(self, key: str, value: str) -> None:
        done = self.run("sh", "-c", f"echo {value} > /proc/sys/{key}")
        assert done.returncode == 0, done

    def has(self, *keys: str) -> list[str]:
        return [" ".join(self.run("cat", f"/proc/sys/{each}").stdout.split()) for each in keys]

    @property
    def awaited(self) -> str:
        path = self.root / "run/reboot-required.pkgs"
        return path.read_text() if path.exists() else ""

    @property
    def notes(self) -> list[str]:
        return sorted(str(each) for each in self.root.glob("var/lib/**/*") if each.is_file())


@pytest.fixture
def kernel(tmp_path: Path) -> Generator[Kernel]:
    if os.geteuid() != 0:
        pytest.skip("settings of the kernel are root's")
    command = ["unshare", "--net", "sh", "-c", "echo there; exec sleep 600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"there\n"
        yield Kernel(tmp_path, holder.pid)
        holder.kill()


def test_what_was_there_before_comes_back(kernel: Kernel) -> None:
    before = kernel.has(TTL, FORWARD)
    assert kernel.set(FORWARD, "1", TTL, "77").returncode == 0
    assert kernel.has(TTL, FORWARD) == ["77", "1"]
    assert kernel.set(TTL, "77").returncode == 0
    assert kernel.has(TTL, FORWARD) == ["77", before[1]]
    for _ in range(2):
        done = kernel.unset()
        assert (done.returncode, done.stderr) == (0, "")
        assert kernel.has(TTL, FORWARD) == before
    assert not (kernel.root / "var/lib/harmony-sysctl").exists()
    assert kernel.awaited == ""


def _have_one_that_cannot_go_back(kernel: Kernel) -> str:
    """What was there before is not taken any more: clients may have ports below it meanwhile."""
    assert kernel.set(FORWARD, "1", PORTS_OF_ALL, "80", TTL, "77").returncode == 0
    kernel.write(PORTS_OF_CLIENTS, "500 60999")
    return PORTS_OF_ALL


def test_what_the_kernel_does_not_take_back_awaits_a_boot_and_all_else_is_given_back(
    kernel: Kernel,
) -> None:
    before = kernel.has(FORWARD, TTL)
    key = _have_one_that_cannot_go_back(kernel)
    done = kernel.unset()
    assert (done.returncode, done.stderr) == (0, "")
    assert kernel.has(FORWARD, TTL) == before
    assert kernel.has(key) == ["80"]
    assert kernel.awaited == f"kernel setting {key}\n"
    assert (kernel.root / "run/reboot-required").exists()
    assert not kernel.notes


def test_a_change_that_drops_such_a_one_is_made_and_says_so(kernel: Kernel) -> None:
    before = kernel.has(FORWARD)
    key = _have_one_that_cannot_go_back(kernel)
    for _ in range(2):
        done = kernel.set(TTL, "78")
        assert (done.returncode, done.stderr) == (0, "")
        assert kernel.has(FORWARD, TTL) == [*before, "78"]
        assert kernel.awaited == f"kernel setting {key}\n"


def test_a_setting_that_another_one_makes_otherwise_is_made_again(kernel: Kernel) -> None:
    """The kernel does as a router, or as a host, where it is told to forward or not."""
    kernel.write(FORWARD, "1")
    kernel.write(REDIRECTS, "0")
    assert kernel.set(REDIRECTS, "0", FORWARD, "0").returncode == 0
    assert kernel.has(REDIRECTS, FORWARD) == ["0", "0"]
    kernel.unset()
    assert kernel.has(REDIRECTS, FORWARD) == ["0", "1"]


def test_settings_that_make_each_other_otherwise_are_told(kernel: Kernel) -> None:
    """These two are one, by two names."""
    of_all = "net/ipv4/conf/all/forwarding"
    done = kernel.set(of_all, "1", FORWARD, "0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == [
        f"reason: settings: {of_all} is 0 again once others are set"
    ]


def test_all_that_is_wrong_is_told_once(kernel: Kernel) -> None:
    done = kernel.set("net/ipv4/no_such", "1", TTL, "070", FORWARD, "1")
    assert done.returncode == 1
    reasons = done.stderr.splitlines()[1:]
    assert [each.split()[2:4] for each in reasons] == [["this", "kernel"], ["the", "kernel"]]
    assert kernel.has(FORWARD) == ["1"]

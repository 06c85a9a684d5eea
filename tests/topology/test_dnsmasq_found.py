"""Whether the dnsmasq of NetworkManager runs: read from the kernel's files; here, from such as these."""

from __future__ import annotations

from pathlib import Path

import pytest

from harmony_pi_topology.network.networkmanager import runs_dnsmasq


def lay_out(root: Path, pid: str, stat: str | None) -> None:
    (root / "run").mkdir()
    (root / "run/nm-dnsmasq-wlan0.pid").write_text(pid)
    if stat is not None:
        (root / "proc/77").mkdir(parents=True)
        (root / "proc/77/stat").write_text(stat)


@pytest.mark.parametrize(
    ("pid", "stat", "runs"),
    [
        ("77\n", "77 (dnsmasq) S 1 77 77 0\n", True),
        ("77\n", "77 (dnsmasq) Z 1 77 77 0\n", False),
        ("77\n", "77 (dnsmasq) X 1 77 77 0\n", False),
        ("77\n", "77 (sh) S 1 77 77 0\n", False),
        ("77\n", "77 ((dnsmasq) S) S 1 77 77 0\n", False),
        ("77\n", "", False),
        ("77\n", None, False),
        ("", "77 (dnsmasq) S 1 77 77 0\n", False),
        ("../1\n", "77 (dnsmasq) S 1 77 77 0\n", False),
    ],
)
def test_only_a_dnsmasq_that_lives_counts(
    tmp_path: Path, pid: str, stat: str | None, runs: bool
) -> None:
    lay_out(tmp_path, pid, stat)
    assert runs_dnsmasq(tmp_path, "wlan0") is runs
    assert runs_dnsmasq(tmp_path, "eth0") is False

"""Unit files as owners have them, beside a Score file: pushed, changed, put right and taken away again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from harmony_control.device import Device
from harmony_pi_topology import PiTopology
from tests.box import Box
from tests.fleet.ground import ControlPlane, Host, statuses, until

Pi = Device[PiTopology]

ETC = "/etc/systemd/system"
SOON_S = 60
SCORES = """
- id: slice
  kind: SystemdUnitScore
  spec: {name: greet.slice, content_from: ./greet.slice, enabled: null}
- id: service
  kind: SystemdUnitScore
  spec: {name: greet.service, content_from: ./greet.service, enabled: null, state: null}
- id: socket
  kind: SystemdUnitScore
  spec: {name: greet.socket, content_from: ./greet.socket}
  after: [slice, service]
"""
FILES = {
    "greet.slice": "[Slice]\nTasksMax=40\n",
    "greet.service": "[Service]\nExecStart=/usr/bin/sleep infinity\nSlice=greet.slice\n",
    "greet.socket": "[Socket]\nListenStream=127.0.0.1:7070\n[Install]\nWantedBy=sockets.target\n",
}


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "greet.yaml").write_text(SCORES)
    return tmp_path


async def push(plane: ControlPlane, pi: Box, beside: Path, *options: str) -> None:
    said = await plane.harmony("push-score", pi.name, str(beside / "greet.yaml"), *options)
    assert said.status == 0, said


def listens_at(host: Host) -> str:
    found = host.unit("greet.socket", "ActiveState", "Listen")
    return found["Listen"] if found["ActiveState"] == "active" else ""


async def wait(pi: Box, is_so: Callable[[], bool]) -> None:
    await asyncio.to_thread(pi.wait_for, is_so, timeout_s=SOON_S)


async def test_a_socket_its_service_and_a_slice_of_one_s_own(
    plane: ControlPlane, device: Pi, pi: Box, host: Host, beside: Path
) -> None:
    await push(plane, pi, beside)
    assert "127.0.0.1:7070" in listens_at(host)
    pi.run(["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/7070"])
    await wait(pi, lambda: host.unit("greet.service", "ActiveState") == {"ActiveState": "active"})
    pid = host.unit("greet.service", "MainPID")["MainPID"]
    assert pi.text("cat", f"/proc/{pid}/cgroup").endswith("/greet.slice/greet.service")

    # Changed by a push: the slice beneath what runs, the socket once that has stopped.
    (beside / "greet.slice").write_text("[Slice]\nTasksMax=41\n")
    await push(plane, pi, beside)
    assert host.unit("greet.slice", "TasksMax") == {"TasksMax": "41"}
    assert host.unit("greet.service", "MainPID") == {"MainPID": pid}
    (beside / "greet.socket").write_text(FILES["greet.socket"].replace("7070", "7071"))
    await asyncio.to_thread(pi.run, ["systemctl", "stop", "greet.socket", "greet.service"])
    await push(plane, pi, beside)
    assert "127.0.0.1:7071" in listens_at(host)

    # What somebody does by hand is put right by itself.
    await asyncio.to_thread(pi.run, ["systemctl", "stop", "greet.socket"])
    await wait(pi, lambda: "127.0.0.1:7071" in listens_at(host))
    edit = "s/TasksMax=41/TasksMax=400/"
    await asyncio.to_thread(pi.run, ["sed", "-i", edit, f"{ETC}/greet.slice"])
    await wait(pi, lambda: pi.read(f"{ETC}/greet.slice") == b"[Slice]\nTasksMax=41\n")
    await until(device, lambda state: {*statuses(state).values()} <= {"SUCCESS", "NOOP"})

    # What is in no file any more goes.
    (beside / "greet.yaml").write_text(SCORES.partition("- id: service")[0])
    await push(plane, pi, beside, "--prune", "--yes")
    for name in ("greet.service", "greet.socket"):
        assert pi.run(["test", "-e", f"{ETC}/{name}"], check=False).returncode
    assert host.unit("greet.socket", "LoadState") == {"LoadState": "not-found"}
    await device.remove("slice")
    await until(device, lambda state: not state.scores)
    assert pi.run(["test", "-e", f"{ETC}/greet.slice"], check=False).returncode


async def test_so_confined_the_agent_has_systemd_read_a_file_before_it_writes_it(
    plane: ControlPlane, device: Pi, pi: Box, host: Host, beside: Path
) -> None:
    (beside / "greet.service").write_text(FILES["greet.service"] + "CPUQuota=half\n")
    (beside / "greet.yaml").write_text(SCORES.partition("- id: socket")[0])
    said = await plane.harmony("push-score", pi.name, str(beside / "greet.yaml"))
    assert said.status == 1, said
    assert "systemd on this device ignores a part of greet.service: line 4: " in said.out, said
    assert host.unit("greet.service", "LoadState") == {"LoadState": "not-found"}
    (beside / "greet.service").write_text(FILES["greet.service"])
    await push(plane, pi, beside)
    assert host.unit("greet.service", "LoadState") == {"LoadState": "loaded"}
    await device.remove("service")
    await device.remove("slice")
    await until(device, lambda state: not state.scores)

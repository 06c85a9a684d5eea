"""The agent as systemd runs it: ready when it says so, watched, and not to be brought down by a Score."""

from __future__ import annotations

import asyncio
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from harmony_control.bus.connection import Bucket, admin
from harmony_control.device import Device
from harmony_core.outcome import Failure
from harmony_core.resources import ContainerDevice, PublishedPort
from harmony_core.score import Score
from harmony_core.wire.actual_state import ActualState
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, FileScore
from tests.box import Bed, Box
from tests.box.layers import built_wheel
from tests.fleet.ground import AGENT, ControlPlane, Host, code_of, heard_again, until

Pi: TypeAlias = Device[PiTopology]

MIB = 1024 * 1024
KILLS_UNTIL_POISONED = 3
EXPOSURE_MOST = 3.1
"""docs/adr/0047-confinement.md has what each point of it is for."""

HANG_PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "harmony-hang"
version = "1.0"
[project.entry-points.harmony]
hang = "harmony_hang"
[tool.hatch.build.targets.wheel]
include = ["harmony_hang.py"]
"""
HANG = '''
"""A Score as none may be: it blocks the loop of whatever interprets it."""

import time

from harmony_core import HasFiles, Inventory, Outcome, Score, impl


class HangScore(Score[HasFiles]):
    why: str = "a defect"

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        while True:
            time.sleep(1)


@impl
def harmony_scores():
    return [HangScore]
'''


@pytest.fixture(scope="module")
def pi(boot: Callable[[], Box], plane: ControlPlane) -> Box:
    box = boot()
    plane.enrol(box, drop_in="WatchdogSec=3\nRestartSec=100ms")
    return box


async def test_it_is_ready_and_says_what_it_does(device: Pi, host: Host) -> None:
    # `systemctl start` has returned, and of a service of this type only READY makes it do so.
    found = host.unit(AGENT, "Type", "ActiveState", "NRestarts")
    assert found == {"Type": "notify", "ActiveState": "active", "NRestarts": "0"}
    await device.push(FileScore(path="/srv/x", content=""), id="x")
    await heard_again(device)
    state = await device.state()
    assert state is not None
    status = host.unit(AGENT, "StatusText")["StatusText"]
    assert status == f"generation {state.generation}, 1 of 1 Scores converged, 0 failed, connected"


async def test_told_to_stop_it_ends_in_order(device: Pi, pi: Box, host: Host) -> None:
    pi.run(["systemctl", "stop", AGENT])
    found = host.unit(AGENT, "ActiveState", "Result", "ExecMainStatus")
    assert found == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}
    pi.run(["systemctl", "start", AGENT])
    await heard_again(device)


async def test_what_it_is_exposed_to_and_how_much_memory_it_takes(
    device: Pi, pi: Box, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    await device.push(FileScore(path="/srv/x", content=""), id="x")
    pid = host.unit(AGENT, "MainPID")["MainPID"]
    status = pi.read(f"/proc/{pid}/status").decode()
    (kib,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    exposure = pi.text("systemd-analyze", "security", "--no-pager", AGENT).splitlines()[-1]
    with capsys.disabled():
        print(f"\n{exposure}\nresident memory of the agent: {int(kib) / 1024:.1f} MiB")
    (level,) = re.findall(r"exposure level for harmony-agent.service: ([0-9.]+)", exposure)
    assert float(level) <= EXPOSURE_MOST
    assert int(kib) * 1024 < 96 * MIB
    # What keeps it from taking the rest of a Pi along, as this systemd has read its unit.
    assert host.unit(AGENT, "MemoryHigh", "MemoryMax", "TasksMax", "LimitCORE") == {
        "MemoryHigh": str(128 * MIB),
        "MemoryMax": str(160 * MIB),
        "TasksMax": "64",
        "LimitCORE": "0",
    }


async def test_so_confined_it_sees_which_devices_there_are_and_opens_none(
    device: Pi, pi: Box, bed: Bed
) -> None:
    bed.registry.make_known_to(pi)
    score = ContainerScore(
        name="gps",
        image=bed.registry.push_busybox("gps", "1"),
        command=("sleep", "1000"),
        devices=(ContainerDevice(source="/dev/ttyGPS"),),
        stop_timeout_s=0,
        settle_s=0,
    )
    state = await device.put_and_wait({"gps": score})
    assert code_of(state, "gps") == "HardwareMissing"
    shell(pi, "mknod /dev/ttyGPS c 1 3")
    await until(device, lambda state: code_of(state, "gps") in {"SUCCESS", "NOOP"})
    assert "1,   3" in pi.text("podman", "exec", "gps", "ls", "-l", "/dev/ttyGPS")
    shell(pi, "mknod /dev/new c 1 5", "mv /dev/new /dev/ttyGPS")
    # While it is made anew, there is none to be asked.
    seen = ["podman", "exec", "gps", "ls", "-l", "/dev/ttyGPS"]
    pi.wait_for(lambda: b"1,   5" in pi.run(seen, check=False).stdout)
    assert pi.run(["ls", "/run/harmony/dev"]).stdout == b"", "it is the agent's alone"
    await device.remove("gps")


FILE_CAPABILITIES = """
import os, struct
os.setxattr("/srv/tool", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0))
"""
LISTEN = """
import socket
listener = socket.create_server(("", 80))
print("listening", flush=True)
input()
"""


async def test_so_confined_it_writes_and_gives_back_files_of_anybody(device: Pi, pi: Box) -> None:
    shell(pi, "id ada >/dev/null 2>&1 || useradd --create-home ada", "chmod 700 /home/ada")
    pi.write("/srv/tool", "theirs\n", mode=0o755)
    pi.run(["python3", "-c", FILE_CAPABILITIES])
    paths = ("/home/ada/x", "/tmp/x", "/srv/tool", "/usr/local/bin/x", "/opt/x")
    scores = {
        f"x{n}": FileScore(path=path, content="ours\n", owner="ada", group="ada", mode=0o600)
        for n, path in enumerate(paths)
    }
    state = await device.put_and_wait(scores)
    assert {code_of(state, name) for name in scores} == {"SUCCESS"}
    for path in paths:
        assert pi.text("stat", "-c", "%U %G %a", path) == "ada ada 600", path
    await device.remove(*scores)
    assert pi.read("/srv/tool") == b"theirs\n"
    shown = "import os; print(os.listxattr('/srv/tool'))"
    assert "security.capability" in pi.text("python3", "-c", shown)


async def test_so_confined_it_finds_that_a_port_below_1024_is_taken_before_it_touches_anything(
    device: Pi, pi: Box, host: Host, bed: Bed
) -> None:
    image = bed.registry.push_busybox("web", "1", command=("sleep", "4711"))

    def web(port: int) -> ContainerScore:
        ports = (PublishedPort(host=port, container=80),)
        return ContainerScore(name="web", image=image, ports=ports, stop_timeout_s=0)

    await device.push(web(8091), id="web")
    before = host.identities(containers=["web"])
    pipe = asyncio.subprocess.PIPE
    listener = await asyncio.create_subprocess_exec(
        *pi.inside(["python3", "-c", LISTEN]), stdin=pipe, stdout=pipe
    )
    assert listener.stdout is not None
    await listener.stdout.readline()
    try:
        state = await device.put_and_wait({"web": web(80)})
        assert code_of(state, "web") == "PortTaken"
        assert host.identities(containers=["web"]) == before
    finally:
        await listener.communicate(b"\n")


EVIL = """
from harmony_core import HasFiles, Score, impl

class FileScore(Score[HasFiles]):
    async def interpret(self, inventory, topology):
        raise NotImplementedError

@impl
def harmony_scores():
    return [FileScore]
"""


async def test_a_package_that_calls_itself_harmony_is_told_and_not_loaded(pi: Box) -> None:
    where = pi.text(
        "sh", "-c", "dirname $(ls -d /opt/harmony/lib/python3*/site-packages/harmony_core)"
    )
    info = f"{where}/aaa-9.dist-info"
    pi.write(f"{where}/aaa_evil.py", EVIL)
    pi.write(f"{info}/METADATA", "Metadata-Version: 2.1\nName: harmony\nVersion: 9\n")
    pi.write(f"{info}/entry_points.txt", "[harmony]\nevil = aaa_evil\n")
    try:
        said = pi.run(["/opt/harmony/bin/harmony-agent", "check"], check=False)
        assert said.returncode == 1
        told = [line for line in said.stdout.decode().splitlines() if "BROKEN" in line]
        assert len(told) == 1, told
        assert "evil = aaa_evil (harmony 9)" in told[0]
        assert "calls itself harmony" in told[0]
    finally:
        shell(pi, f"rm -r {info} {where}/aaa_evil.py")
    again = pi.run(["/opt/harmony/bin/harmony-agent", "check"], check=False)
    assert b"BROKEN" not in again.stdout


def test_what_is_not_offered_is_no_fault_and_what_does_not_answer_is_one(pi: Box) -> None:
    check = ["/opt/harmony/bin/harmony-agent", "check"]
    well = pi.run(check, check=False)
    assert b"NetworkConfigurator NOT OFFERED" in well.stdout
    assert well.returncode == 0, well.stdout
    toml = "/etc/harmony/agent.toml"
    before = pi.read(toml)
    # As where somebody has disabled it: it is not woken only to be asked.
    pi.run(["systemctl", "stop", "podman.socket", "podman.service"])
    pi.run(["rm", "/run/podman/podman.sock"])
    try:
        hindered = pi.run(check, check=False)
        assert b"ContainerRuntime    offered, but does not answer now" in hindered.stdout
        assert hindered.returncode == 1
    finally:
        pi.run(["systemctl", "start", "podman.socket"])
    pi.write(
        toml,
        before.decode() + '[topology.use]\nNetworkConfigurator = "their-network"\n',
        mode=0o600,
    )
    try:
        missing = pi.run(check, check=False)
        assert b"agent.toml says that it comes from the package their-network" in missing.stdout
        assert missing.returncode == 1
    finally:
        pi.write(toml, before, mode=0o600)
    assert pi.run(check, check=False).returncode == 0


async def test_whoever_keeps_the_server_cannot_bring_back_what_was_before_a_lost_disk(
    plane: ControlPlane, device: Pi, pi: Box
) -> None:
    """Neither where the state directory was emptied, nor where all but agent.toml is lost."""

    async def start_with(envelope: bytes) -> None:
        async with admin(plane.home) as client:
            await Bucket(client, "desired-state").put(pi.name, envelope)
        pi.run(["systemctl", "start", AGENT])

    def is_refused(code: str) -> Callable[[ActualState], bool]:
        return lambda state: any(each.message.startswith(f"{code}:") for each in state.conditions)

    def stored() -> bytes:
        found = plane.home.read_stored_manifest(pi.name)
        assert found is not None
        return found

    await device.push(FileScore(path="/srv/served", content="vulnerable\n"), id="served")
    older = stored()
    await device.push(FileScore(path="/srv/served", content="patched\n"), id="served")
    newest = stored()
    pi.run(["systemctl", "stop", AGENT])
    shell(pi, "rm -rf /var/lib/harmony/*")
    await start_with(older)
    await until(device, is_refused("StaleGeneration"))
    pi.run(["systemctl", "stop", AGENT])
    shell(
        pi,
        "rm -rf /var/lib/harmony/* /etc/harmony/floor.copy.json",
        "touch -d '2 days ago' /etc/harmony/agent.toml",
    )
    await start_with(older)
    await until(device, is_refused("FloorLost"))
    assert pi.read("/srv/served") == b"patched\n"
    pi.run(["systemctl", "stop", AGENT])
    pi.run(["/opt/harmony/bin/harmony-agent", "reset-floor", "--yes"])
    await start_with(newest)
    await until(
        device,
        lambda state: "served" in state.scores and code_of(state, "served") in {"SUCCESS", "NOOP"},
    )
    pi.run(["systemctl", "restart", AGENT])  # that its memory was lost is told until then
    await heard_again(device)


def shell(box: Box, *steps: str) -> None:
    box.run(["sh", "-c", " && ".join(steps)])


async def test_on_a_disk_that_is_full_it_starts_says_so_and_goes_on_by_itself(
    device: Pi, pi: Box, host: Host, plane: ControlPlane
) -> None:
    await device.push(FileScore(path="/srv/kept", content="kept\n"), id="kept")
    state_directory = "/var/lib/harmony"
    pi.run(["systemctl", "stop", AGENT])
    shell(
        pi,
        f"cp -a {state_directory} /root/state",
        f"mount -t tmpfs -o size=3m tmpfs {state_directory}",
        f"cp -a /root/state/. {state_directory}/",
        f"(head -c 9000000 /dev/zero > {state_directory}/filling || true) 2>/dev/null",
    )
    pi.write("/srv/kept", "theirs\n")
    pi.run(["systemctl", "start", AGENT])
    try:
        state = await until(
            device, lambda state: any(each.reason == "LedgerUnusable" for each in state.conditions)
        )
        (ready,) = (each for each in state.conditions if each.type == "Ready")
        assert ready.status == "False"
        assert "is full" in ready.message
        pi.wait_for(lambda: pi.read("/srv/kept") == b"kept\n")
        assert (await plane.harmony("status", pi.name)).status != 0
        shell(pi, f"rm {state_directory}/filling")
        await until(
            device,
            lambda state: (
                all(each.reason != "LedgerUnusable" for each in state.conditions)
                and code_of(state, "kept") in {"SUCCESS", "NOOP"}
            ),
        )
        assert host.unit(AGENT, "NRestarts") == {"NRestarts": "0"}
    finally:
        pi.run(["systemctl", "stop", AGENT])
        shell(
            pi,
            f"cp -a {state_directory}/. /root/state/",
            f"umount -l {state_directory}",
            f"cp -a /root/state/. {state_directory}/",
        )
        pi.run(["systemctl", "start", AGENT])
    await heard_again(device)


async def test_a_disk_that_was_read_only_at_its_start_is_told_with_what_to_do(
    device: Pi, pi: Box
) -> None:
    state_directory = "/var/lib/harmony"

    def is_told(state: ActualState) -> bool:
        return any(
            each.reason == "LedgerUnusable" and "systemctl restart harmony-agent" in each.message
            for each in state.conditions
        )

    pi.run(["systemctl", "stop", AGENT])
    shell(
        pi,
        f"cp -a {state_directory} /root/before",
        f"mount -t tmpfs tmpfs {state_directory}",
        f"cp -a /root/before/. {state_directory}/",
        f"mount -o remount,ro {state_directory}",
    )
    pi.run(["systemctl", "start", AGENT])
    try:
        await until(device, is_told)
        shell(pi, f"mount -o remount,rw {state_directory}", f"touch {state_directory}/it")
        await heard_again(device)
        state = await device.state()
        assert state is not None
        assert is_told(state), "its mounts are its own"
        pi.run(["systemctl", "restart", AGENT])
        await until(device, lambda state: not is_told(state))
    finally:
        pi.run(["systemctl", "stop", AGENT])
        shell(
            pi,
            f"cp -a {state_directory}/. /root/before/",
            f"umount -l {state_directory}",
            f"cp -a /root/before/. {state_directory}/",
            "rm -r /root/before",
        )
        pi.run(["systemctl", "start", AGENT])
    await heard_again(device)


@pytest.fixture
def hang(pi: Box, tmp_path: Path) -> type[Score[PiTopology]]:
    """A kind that blocks the loop, in the agent of the Pi."""
    (tmp_path / "pyproject.toml").write_text(HANG_PROJECT)
    module = tmp_path / "harmony_hang.py"
    module.write_text(HANG)
    wheel = built_wheel(tmp_path)
    pi.write(f"/root/{wheel.name}", wheel.read_bytes())
    pip = ["/opt/harmony/bin/pip", "install", "--quiet", "--no-index", "--no-deps"]
    pi.run([*pip, f"/root/{wheel.name}"])
    pi.run(["systemctl", "restart", AGENT])
    spec = importlib.util.spec_from_file_location("harmony_hang", module)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    kind: type[Score[PiTopology]] = loaded.HangScore
    return kind


async def test_a_score_that_blocks_the_loop_is_poisoned_after_three_kills_and_the_others_are_fine(
    hang: type[Score[PiTopology]], device: Pi, pi: Box, host: Host
) -> None:
    """Elsewhere an agent is shown as online, and does nothing any more (flightctl/flightctl#2543)."""
    await until(device, lambda state: "HangScore" in state.kinds)
    good = FileScore(path="/srv/good", content="good\n")
    state = await device.put_and_wait({"hang": hang(), "good": good})
    assert code_of(state, "good") in {"SUCCESS", "NOOP"}
    assert pi.read("/srv/good") == b"good\n"
    outcome = state.scores["hang"].outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "Poisoned"
    assert outcome.error.retry_at is None
    assert host.unit(AGENT, "NRestarts") == {"NRestarts": str(KILLS_UNTIL_POISONED)}

    more = FileScore(path="/srv/more", content="more\n")
    state = await device.put_and_wait({"more": more})
    assert (code_of(state, "more"), code_of(state, "hang")) == ("SUCCESS", "Poisoned")
    await heard_again(device)
    assert host.unit(AGENT, "NRestarts") == {"NRestarts": str(KILLS_UNTIL_POISONED)}

"""What a stranger reads, with nats-py and docs/wire.md alone, is what the device's own tools say."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any, TypeAlias

import attrs
import pytest

from harmony_control.device import Device
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, FileScore, SystemdServiceScore
from tests.box import Bed
from tests.fleet.ground import TREE, ControlPlane, Host, in_shell

Pi: TypeAlias = Device[PiTopology]

STRANGER = TREE / "examples/stranger.py"


@attrs.frozen
class Heard:
    """What the stranger printed: the status of each Score, the facts of each resource."""

    first_line: str
    scores: dict[str, str]
    resources: dict[str, dict[str, str]]


async def _ask(plane: ControlPlane, device: str) -> Heard:
    # -I: neither this tree nor anything of Harmony's is on its path but what is installed.
    command = [sys.executable, "-I", str(STRANGER), device]
    command += [plane.home.control().url, str(plane.home.server)]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=True
    )
    first, *lines = done.stdout.splitlines()
    indented = [line.split() for line in lines if line.startswith("  ")]
    return Heard(
        first,
        dict(line.rstrip().split(": ") for line in lines if not line.startswith("  ")),
        {rid: dict(fact.split("=", 1) for fact in facts) for rid, *facts in indented},
    )


def test_the_stranger_knows_nothing_of_harmony() -> None:
    imported = [
        line.split()[1]
        for line in STRANGER.read_text().splitlines()
        if line.startswith(("import", "from"))
    ]
    assert imported == ["asyncio", "json", "ssl", "sys", "pathlib", "typing", "nats"]


async def test_what_a_stranger_reads_is_what_is_true(
    plane: ControlPlane, device: Pi, host: Host, bed: Bed
) -> None:
    image = bed.registry.push_busybox("web", "1")
    await device.put_and_wait(
        {
            "motd": FileScore(path="/etc/motd.d/hello", content="hello\n", mode=0o640),
            "sleeper": SystemdServiceScore(
                name="sleeper.service", exec_start=("/usr/bin/sleep", "infinity")
            ),
            "box": ContainerScore(name="box", image=image, command=in_shell("sleep 86399")),
        }
    )
    heard = await _ask(plane, device.id)
    assert heard.first_line == f"{device.id} is up to date"
    assert heard.scores == {"motd": "SUCCESS", "sleeper": "SUCCESS", "box": "SUCCESS"}
    _is_true_of_the_file(heard.resources["file:/etc/motd.d/hello"], host)
    _is_true_of_the_unit(heard.resources["unit:sleeper.service"], host)
    _is_true_of_the_container(heard.resources["container:box"], host, image)


def _is_true_of_the_file(told: dict[str, str], host: Host) -> None:
    found = (host.box.root / "etc/motd.d/hello").stat()
    assert told == {
        "state": "PresentAt",
        "sha256": host.sha256("/etc/motd.d/hello"),
        "mode": f"{found.st_mode & 0o7777:04o}",
        "size_bytes": str(found.st_size),
        "owner": "root",
        "group": "root",
    }


def _is_true_of_the_unit(told: dict[str, str], host: Host) -> None:
    properties = ("ActiveState", "SubState", "Result", "UnitFileState", "ActiveEnterTimestamp")
    found = host.unit("sleeper.service", *properties)
    assert told["state"].lower() == found["ActiveState"] == "active"
    assert told["sub"] == found["SubState"]
    assert told["result"] == found["Result"]
    assert told["enabled"] == str(found["UnitFileState"] == "enabled")
    _, day, time, zone = found["ActiveEnterTimestamp"].split()
    assert zone == "UTC"
    assert told["since"][:19] == f"{day}T{time}"


def _is_true_of_the_container(told: dict[str, str], host: Host, image: str) -> None:
    found: Any = host.container("box")
    assert told["state"].lower() == found["State"]["Status"] == "running"
    assert told["since"][:19] == found["State"]["StartedAt"][:19]
    assert told["restarts"] == str(found["RestartCount"])
    assert told["image"].partition("@")[2] == image.partition("@")[2] == found["ImageDigest"]


async def test_a_stranger_reads_that_something_failed_and_is_gone(
    plane: ControlPlane, device: Pi, host: Host
) -> None:
    broken = SystemdServiceScore(name="broken.service", exec_start=("/bin/false",), restart="no")
    await device.push(broken, id="broken")
    while True:
        heard = await _ask(plane, device.id)
        found = host.unit("broken.service", "ActiveState", "Result")
        if not heard.scores["broken"].startswith("RUNNING") and found["ActiveState"] == "failed":
            break  # else it was just being tried again, which happens ever more seldom
    assert heard.scores == {"broken": "FAILURE UnitFailed"}
    told = heard.resources["unit:broken.service"]
    assert (told["state"].lower(), told["result"]) == (found["ActiveState"], found["Result"])
    await device.remove("broken")
    assert (await _ask(plane, device.id)).scores == {}


@pytest.mark.usefixtures("device")
async def test_a_stranger_is_told_of_a_device_that_has_never_reported(plane: ControlPlane) -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        await _ask(plane, "pi-unheard-of")
    assert "has never reported (404)" in raised.value.stderr

"""What a transient service runs is what it was given, also where systemd reads all units anew before."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest

from harmony_core.resources import Job
from harmony_pi_topology.jobs.systemd import mounts_of, service_of
from harmony_pi_topology.systemd.sdbus import Properties, SystemdBus, exec_start
from tests.box.box import Box

pytestmark = [pytest.mark.box, pytest.mark.timeout(60)]

WORDS = (
    *(
        "$HOME",
        "${HOME}",
        "$$",
        "$$$$",
        "$((1 + 1))",
        "a$",
        "%n",
        "%%",
        "%",
        ";",
        "",
        " ",
        "\\x41",
        "\\",
    ),
    *(
        '"',
        "'",
        'it\'s "so"',
        "two\nlines\n",
        "\ttab\r",
        "grün",
        "@",
        "-",
        ":",
        "a\\\nb",
        "\x01",
        "*",
    ),
)
TELL = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['SAID']]))"
GATE = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nExecStart=/bin/sleep infinity\n"
TOLD = "/run/told"


@pytest.fixture
async def bus(pi: Box) -> AsyncGenerator[SystemdBus]:
    pi.run(["sh", "-c", "cat > /run/systemd/system/gate.service"], stdin=GATE.encode())
    pi.run(["sh", "-c", f"rm -f {TOLD}; systemctl daemon-reload; systemctl start --no-block gate"])
    bus = SystemdBus(pi.dbus_address)
    yield bus
    async with asyncio.timeout(30):
        await bus.forget("said.service")
    bus.close()
    pi.run(["systemctl", "stop", "gate"], check=False)


@pytest.mark.parametrize("reloads", [0, 1, 3])
async def test_a_command_and_its_environment_are_what_was_given(
    bus: SystemdBus, pi: Box, reloads: int
) -> None:
    said = " ".join(WORDS)
    properties: Properties = [
        ("Type", ("s", "exec")),
        exec_start(("/usr/bin/python3", "-c", TELL, *WORDS)),
        ("Environment", ("as", [f"SAID={said}", "HOME=/elsewhere"])),
        ("StandardOutputFileToTruncate", ("s", TOLD)),
        ("After", ("as", ["gate.service"])),
    ]
    await bus.run("said.service", properties, [])
    for _ in range(reloads):
        await bus.reload()
    pi.run(["systemctl", "stop", "gate"])
    async with asyncio.timeout(20):
        while not pi.run(["cat", TOLD], check=False).stdout:
            await asyncio.sleep(0.1)
    assert json.loads(pi.text("cat", TOLD)) == [list(WORDS), said]


@pytest.mark.parametrize("fields", [{}, {"privileged": True}, {"network": True}], ids=str)
async def test_a_job_is_as_confined_after_all_units_were_read_anew(
    bus: SystemdBus, pi: Box, fields: Mapping[str, Any]
) -> None:
    job = Job(name="said", command=("/bin/true",), environment={"A": "$B %n"}, **fields)
    after = [
        ("After", ("as", [*value[1], "gate.service"])) if name == "After" else (name, value)
        for name, value in service_of(job, "said")
    ]
    await bus.run("said.service", after, mounts_of(job, "said"))

    def shown() -> dict[str, list[str]]:
        lines = (each.split("=", 1) for each in pi.text("systemctl", "show", "said").splitlines())
        return {key: sorted(value.split()) for key, value in lines if "Timestamp" not in key}

    before = shown()
    await bus.reload()
    changed = {key for key, value in shown().items() if value != before.get(key)}
    assert not {key: (before.get(key), shown()[key]) for key in changed}

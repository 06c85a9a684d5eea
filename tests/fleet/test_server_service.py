"""The server as a service: docs/running.md, typed on a machine as root, and what it says there is so."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harmony_control.store.home import Home
from tests.box import Box
from tests.box.layers import built_wheel, server_packages
from tests.fleet.ground import TREE
from tests.nats import connected

pytestmark = pytest.mark.timeout(300)

PAGE = (TREE / "docs" / "running.md").read_text().partition("\n## A NATS server of your own")[0]
SECTION = PAGE.partition("\n## The server as a service\n")[2]
TYPED = re.findall(r"^# (.*)$", SECTION, re.MULTILINE)
SERVICE = "harmony-server.service"
HOME = "/var/lib/harmony-server"
AS_ITS_USER = ("runuser", "-u", "harmony", "--", "env", f"HARMONY_HOME={HOME}")
HARMONY = (*AS_ITS_USER, "/opt/harmony/bin/harmony")


@pytest.fixture(scope="module")
def machine(boot: Callable[[], Box]) -> Box:
    """A machine on which everything of the page was typed, in the folder ``dist`` of `make wheel`."""
    box = boot()
    box.run(["rm", "-r", "/opt/harmony"])
    wheel = built_wheel(TREE)
    subprocess.run([sys.executable, "-m", "deploy.locks", str(wheel.parent)], cwd=TREE, check=True)
    for path in filter(Path.is_file, wheel.parent.iterdir()):
        box.write(f"/srv/dist/{path.name}", path.read_bytes())
    for path in filter(Path.is_file, server_packages().iterdir()):
        box.write(f"/srv/packages/{path.name}", path.read_bytes())
    # What it would find on the network.
    box.write(
        "/etc/pip.conf",
        "[global]\nno-index = true\nfind-links = /srv/packages\n",
    )
    for line in TYPED:
        box.run(["sh", "-c", f"cd /srv/dist && {line}"], timeout_s=180)
    return box


_ANOTHER_PID = f"pid=$(systemctl show -P MainPID {SERVICE}); [ $pid != {{}} ] && [ $pid != 0 ]"


def _ask(box: Box, *command: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in box.text(*HARMONY, *command, "--json").splitlines()]


def _await_server(box: Box) -> None:
    box.wait_for([*HARMONY, "agents"])


def _main_pid(box: Box) -> str:
    return box.text("systemctl", "show", "-P", "MainPID", SERVICE)


async def test_the_service_serves_a_device_and_is_there_again_after_a_restart_and_a_kill(
    machine: Box,
) -> None:
    assert [shlex.split(line)[0] for line in TYPED].count("systemctl") == 1
    _await_server(machine)
    url = f"tls://{machine.address}:4222"
    assert _ask(machine, "add-agent", "pi-9", "--url", url)
    home = Home(machine.root / HOME.lstrip("/"))
    for ended in (
        None,
        ["systemctl", "restart", SERVICE],
        ["systemctl", "kill", "--signal=KILL", SERVICE],
    ):
        before = _main_pid(machine)
        if ended is not None:
            machine.run(ended)
            machine.wait_for(["sh", "-c", _ANOTHER_PID.format(before)])
            _await_server(machine)
        async with connected(home, "pi-9") as device:
            revision = await device.say("inventory", b"{}")
            found = await device.bucket("desired-state").get("pi-9")
        assert revision > 0
        assert found is None
        (row,) = _ask(machine, "agents")
        assert row["id"] == "pi-9"
    assert machine.text("systemctl", "is-enabled", SERVICE) == "enabled"
    assert machine.text("stat", "-c", "%U %a", HOME) == "harmony 700"

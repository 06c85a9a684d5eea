"""A Pi in a box, its agent under systemd, for what a folder cannot show.

It stands in a network of its own, which this process's main thread joins for as long as it lasts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import attrs

from harmony_control.device import Device
from harmony_control.fleet import Fleet
from harmony_pi_topology import PiTopology
from tests.box import Bed as Boxes
from tests.box import Box
from tests.box.layers import Unobtainable, why_no_boxes
from tests.fleet.ground import AGENT, ControlPlane, Host

from .bed import floor_start
from .figures import Unmeasurable
from .processes import tree

__all__ = ["Pi", "pi_in_a_box"]

_READY_WITHIN_S = 30.0
_HERE = Path(__file__).parent
_PYTHON = "/opt/harmony/bin/python"
"""The agent's interpreter in a box, with all that it imports."""


@attrs.frozen
class Pi:
    """A box, and who speaks to it."""

    boxes: Boxes
    box: Box
    plane: ControlPlane
    device: Device[PiTopology]

    @property
    def host(self) -> Host:
        return Host(self.box)

    def agent_pid(self) -> int:
        """Its agent, as this machine numbers it."""
        return self.pid_of(self.host.unit(AGENT, "MainPID")["MainPID"])

    def pid_of(self, inside: str) -> int:
        """Return the number on this machine of a process of the box."""
        for pid in tree(self.box.pid):
            status = Path(f"/proc/{pid}/status").read_text()
            if status.partition("\nNSpid:")[2].partition("\n")[0].split()[-1] == inside:
                return pid
        raise Unmeasurable(f"the box has no process {inside}")

    @asynccontextmanager
    async def floor(
        self, module: str, **told: object
    ) -> AsyncGenerator[asyncio.subprocess.Process]:
        """Run the floor *module* in the box with the agent's interpreter; yield it once it is ready."""
        for path in (*_HERE.glob("floors/*.py"), _HERE / "__init__.py"):
            self.box.write(f"/root/{path.relative_to(_HERE.parent)}", path.read_bytes())
        self.box.write(f"/root/{module}.json", json.dumps(told))
        run = f"cd /root && exec {_PYTHON} -c '{floor_start(module)}' /root/{module}.json"
        async with self.running(["sh", "-c", run], stdout=asyncio.subprocess.PIPE) as process:
            assert process.stdout is not None
            async with asyncio.timeout(_READY_WITHIN_S):
                assert (await process.stdout.readline()).startswith(b"ready")
            yield process

    @asynccontextmanager
    async def running(
        self, command: Sequence[str], *, stdout: int | IO[bytes]
    ) -> AsyncGenerator[asyncio.subprocess.Process]:
        """*command* in the box, until it is not needed any more."""
        # nsenter waits for what it has started; killed, it takes that along only if it is told to.
        process = await asyncio.create_subprocess_exec(
            *self.box.inside(["setpriv", "--pdeathsig", "KILL", *command]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout,
        )
        try:
            yield process
        finally:
            process.kill()
            await process.wait()


@asynccontextmanager
async def pi_in_a_box(root: Path) -> AsyncGenerator[Pi]:
    """Booted and enrolled. `Unmeasurable` where there are no boxes."""
    if (why := why_no_boxes()) is not None:
        raise Unmeasurable(why)
    try:
        with Boxes() as boxes:
            plane = ControlPlane(root / "plane")
            plane.start()
            try:
                box = boxes.boot("pi-1")
                plane.enrol(box)
                async with Fleet.connect(plane.home) as fleet:
                    yield Pi(boxes, box, plane, fleet.device(box.name))
            finally:
                plane.stop()
    except Unobtainable as error:
        raise Unmeasurable(str(error)) from error

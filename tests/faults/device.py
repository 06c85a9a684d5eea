"""One device of the fleet under faults: its small disk, its stand-in daemons, its agent, its way out."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import attrs
import cattrs

from tests.faults.agents import Applying, Case
from tests.faults.podman_stand_in import StandInPodman
from tests.faults.relay import Relay
from tests.faults.systemd_stand_in import StandInSystemd
from tests.faults.things import UNITS, lay
from tests.topology.served_systemd import PrivateBus

__all__ = ["Clock", "Device", "Launcher", "find_faketime"]

_TREE = Path(__file__).parents[2]
_DISK = "size=24m,mode=0755"
_FAKETIME = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
)


def find_faketime() -> str | None:
    """Return the library that lets a process have another time, if it is installed here."""
    return next((each for each in _FAKETIME if Path(each).exists()), None)


@attrs.frozen
class Clock:
    """The wall clock of the agents of one launcher, where it can be set."""

    file: Path

    def set_ahead(self, seconds: int) -> None:
        """By so much; 0 is right."""
        before = self.file.with_suffix(".new")
        before.write_text(f"{seconds:+d}s\n")
        before.rename(self.file)


class Launcher:
    """Starts agents: `tests.faults.agents`, with a clock of its own where *faketime* is there."""

    def __init__(self, folder: Path, faketime: str | None) -> None:
        self.clock = Clock(folder / "clock")
        self.clock.set_ahead(0)
        self._asking = asyncio.Lock()
        environment = dict(os.environ)
        if faketime is not None:
            environment |= {
                "LD_PRELOAD": faketime,
                "FAKETIME_TIMESTAMP_FILE": str(self.clock.file),
                # Read anew at each question, it would take most of an agent's time.
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "NO_FAKE_STAT": "1",
                # Who is killed with its semaphore in hand would stop all others.
                "FAKETIME_DISABLE_SHM": "1",
            }
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.faults.agents"],
            cwd=_TREE,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def start(self, case: Case) -> int:
        """Start an agent: its pid."""
        async with self._asking:
            return await asyncio.to_thread(self._ask, case)

    def close(self) -> None:
        """End it, and all its agents with it."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, case: Case) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(cattrs.unstructure(case)), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, "whoever starts agents has ended"
        return int(answer)


@attrs.define
class Device:
    """Made by `Device.made`."""

    id: str
    folder: Path
    relay: Relay
    bus: PrivateBus
    systemd: StandInSystemd
    podman: StandInPodman
    applying: Applying
    launcher: Launcher
    dice: random.Random
    toml: Path | None = None
    pid: int = 0
    root: Path = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.root = self.folder / "disk/root"

    @classmethod
    @asynccontextmanager
    async def made(
        cls, id: str, folder: Path, to: int, launcher: Launcher, seed: int
    ) -> AsyncGenerator[Device]:
        """Yield a device that was never heard of, which reaches the server at the port *to*."""
        disk, run = folder / "disk", folder / "run"
        for each in (disk, run):
            each.mkdir(parents=True)
        dice = random.Random(f"{seed} {id}")
        async with AsyncExitStack() as stack:
            await _call("mount", "-t", "tmpfs", "-o", _DISK, "tmpfs", str(disk))
            stack.push_async_callback(_call, "umount", "-l", str(disk))
            root = disk / "root"
            lay(root)
            bus = PrivateBus(run)
            systemd = StandInSystemd(root, UNITS, dice)
            podman = StandInPodman(run / "podman.sock", dice)
            stack.push_async_callback(bus.kill)
            await bus.start()
            stack.push_async_callback(systemd.close)
            await systemd.serve(bus.address)
            stack.push_async_callback(podman.die)
            await podman.serve()
            relay = await stack.enter_async_context(Relay(to))
            device = cls(id, folder, relay, bus, systemd, podman, Applying(run), launcher, dice)
            stack.push_async_callback(device.kill_agent)
            yield device

    @property
    def log(self) -> str:
        """The last words of its agents."""
        with suppress(FileNotFoundError):
            return (self.folder / "run/log").read_text(errors="replace")[-30000:]
        return ""

    async def start_agent(self) -> None:
        assert self.toml is not None
        self.pid = await self.launcher.start(
            Case(toml=str(self.toml), disk=str(self.folder / "disk"), run=str(self.folder / "run"))
        )

    async def tell_what_it_does(self) -> None:
        """Have its agent write into its log what it waits for: its threads, and its tasks."""
        for number in (signal.SIGUSR2, signal.SIGUSR1):
            if self.agent_runs:
                os.kill(self.pid, number)
                await asyncio.sleep(1)

    async def kill_agent(self) -> None:
        """kill -9, and wait until it has ended. Idempotent."""
        if self.pid:
            with suppress(ProcessLookupError):
                process = os.pidfd_open(self.pid)
                try:
                    os.kill(self.pid, signal.SIGKILL)
                    await _end_of(process)
                finally:
                    os.close(process)
            self.pid = 0

    @property
    def agent_runs(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return self.pid != 0

    async def restart_bus(self) -> None:
        """Have D-Bus start anew, and systemd take its name there."""
        await self.bus.kill()
        await self.bus.start()
        await self.systemd.serve(self.bus.address)

    def fill_disk(self) -> None:
        """Leave no byte free."""
        with (self.folder / "disk/filling").open("wb", buffering=0) as file:
            for piece in (1024 * 1024, 4096):
                with suppress(OSError):
                    while file.write(b"\0" * piece):
                        pass

    def free_disk(self) -> None:
        (self.folder / "disk/filling").unlink(missing_ok=True)

    @property
    def descriptors(self) -> Counter[str]:
        """What the descriptors of its agent are, by name."""
        found: Counter[str] = Counter()
        for each in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found[re.sub(r":\[\d+\]", "", str(each.readlink()))] += 1
        return found

    @property
    def size(self) -> tuple[int, int]:
        """(resident memory in KiB, descriptors) of its agent."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(resident.split()[1]), len(os.listdir(f"/proc/{self.pid}/fd"))


async def _call(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0, command


async def _end_of(process: int) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def note() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(process, note)
    try:
        await ended
    finally:
        loop.remove_reader(process)

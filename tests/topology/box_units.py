"""The units of a Pi in a box, and a bystander who works in that box with systemd's own commands."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path

from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_pi_topology.common.journal import Journal
from harmony_pi_topology.posix.root import Root
from harmony_pi_topology.systemd.reconciler import SdbusSystemd
from harmony_pi_topology.systemd.verification import UnitVerifier
from harmony_pi_topology.testing.units_under_test import UnitsUnderTest
from tests.box import Box

__all__ = ["BoxUnits", "UnitsOfABox", "emptied"]

_EMPTY = """
systemctl thaw 'harmony-contract*'
systemctl stop 'harmony-contract*'
rm -rf /etc/systemd/system/harmony-contract* /etc/systemd/system/*.wants/harmony-contract* \
    /etc/systemd/system/harmony-.service.d /etc/systemd/system/service.d \
    /etc/systemd/system.control/harmony-contract* /run/systemd/system.control/harmony-contract* \
    /usr/lib/systemd/system/harmony-contract* /run/harmony-contract*
systemctl daemon-reload
systemctl reset-failed
"""


def emptied(box: Box) -> None:
    """Take away every unit and file of the contract."""
    box.run(["sh", "-c", _EMPTY], check=False)


class RootOfABox(Root):
    """The files of a box, seen from outside, and the kernel's settings as they are inside.

    Those of the network belong to whose process reads them.
    """

    def __init__(self, box: Box) -> None:
        super().__init__(str(box.root))
        self._box = box

    def read(self, path: str, *, max_bytes: int) -> bytes:
        if path.startswith("/proc/sys/"):
            found = self._box.run(["cat", path], check=False)
            if found.returncode:
                raise FileNotFoundError(path)
            return found.stdout
        return super().read(path, max_bytes=max_bytes)


class UnitsOfABox:
    """Reconcilers that share their records, as an agent's do across its restarts."""

    def __init__(self, box: Box, *, records: MemoryRecords | None = None) -> None:
        self.records = records or MemoryRecords()
        self.backups = MemoryBackups()
        self._box = box
        self._opened: list[SdbusSystemd] = []

    def opened(self) -> SdbusSystemd:
        root = RootOfABox(self._box)
        systemd = SdbusSystemd(
            records=self.records,
            backups=self.backups,
            address=self._box.dbus_address,
            files=root,
            verifier=UnitVerifier(root, self._box.inside(["systemd-analyze"])),
            journal=Journal(self._box.inside(["journalctl"])),
            probe_address=self._box.address,
            job_wait_s=0.5,
            liveness_every_s=0.2,
        )
        self._opened.append(systemd)
        return systemd

    def under_test(self) -> UnitsUnderTest:
        return UnitsUnderTest(
            units=self.opened(), bystander=BoxUnits(self._box), reopen=self.opened
        )

    async def close(self) -> None:
        for each in self._opened:
            await each.close()


class BoxUnits:
    """A `UnitBystander` in a box."""

    def __init__(self, box: Box) -> None:
        self._box = box

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def install(self, name: str, content: str) -> None:
        self._box.write(f"/usr/lib/systemd/system/{name}", content)
        await self.reload()

    async def reload(self) -> None:
        await self.systemctl("daemon-reload")

    async def start(self, name: str) -> None:
        await self.systemctl("start", name)

    async def stop(self, name: str) -> None:
        await self.systemctl("stop", name)

    async def restart(self, name: str) -> None:
        await self.systemctl("restart", name)

    async def kill(self, name: str) -> None:
        before = await self.show(name, "InvocationID", "MainPID")
        await self.systemctl("kill", "--signal=KILL", name)
        for _ in range(500):
            if await self.show(name, "InvocationID", "MainPID") != before:
                return
        raise AssertionError(f"systemd has not noticed that {name} was killed")

    async def freeze(self, name: str) -> None:
        await self.systemctl("freeze", name)

    async def thaw(self, name: str) -> None:
        await self.systemctl("thaw", name)

    async def enable(self, name: str) -> None:
        await self.systemctl("enable", name)

    async def disable(self, name: str) -> None:
        await self.systemctl("disable", name)

    async def mask(self, name: str) -> None:
        # As systemctl does it, which refuses to where a file of somebody's stands.
        await self.run("ln", "-sfn", "/dev/null", f"/etc/systemd/system/{name}")
        await self.systemctl("daemon-reload")

    async def is_enabled(self, name: str) -> bool:
        done = await self.run("systemctl", "is-enabled", name, check=False)
        return done.stdout.strip() == b"enabled"

    async def identity(self, name: str) -> str:
        return await self.show(name, "InvocationID")

    async def command(self, name: str) -> str:
        pid = await self.show(name, "MainPID")
        if pid in {"", "0"}:
            return ""
        with contextlib.suppress(FileNotFoundError):
            arguments = self._box.read(f"/proc/{pid}/cmdline").rstrip(b"\0").split(b"\0")
            return b" ".join(arguments).decode()
        return ""

    async def reloads(self) -> str:
        done = await self.run("systemctl", "show", "--property=UnitsLoadTimestampMonotonic")
        return done.stdout.decode()

    def write(self, path: str, content: bytes) -> None:
        self._box.write(path, content)

    def delete(self, path: str) -> None:
        Path(f"{self._box.root}{path}").unlink()

    def read(self, path: str) -> bytes | None:
        file = Path(f"{self._box.root}{path}")
        return file.read_bytes() if file.is_file() else None

    async def show(self, name: str, *properties: str) -> str:
        """The values of properties, a line each."""
        wanted = [f"--property={each}" for each in properties]
        done = await self.run("systemctl", "show", "--value", *wanted, name)
        return done.stdout.decode().strip()

    async def systemctl(self, *arguments: str) -> None:
        await self.run("systemctl", *arguments)

    async def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return await asyncio.to_thread(self._box.run, command, check=check)

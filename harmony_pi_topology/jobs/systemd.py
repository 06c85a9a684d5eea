"""Jobs as transient services of systemd: the reconciler behind `JobRunner`.

    StartTransientUnit harmony-job-NAME.service -> it stays when it has ended, until it is let go
                                                -> what it writes: /run/harmony/jobs/NAME/out and err

systemd runs it, so that it outlives the agent, and confines it. Nothing is ever run by the agent itself.
What a confined one writes is bounded by a limit on every file. A privileged one must be able to write larger
ones: its directory is a file system of its own, of that size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Final

from harmony_core.change import Change
from harmony_core.errors import TimedOut
from harmony_core.reconciler import Availability, OnChange, Records
from harmony_core.resources import Finished, Job
from harmony_core.wire.times import read_microseconds, rfc3339
from harmony_pi_topology.common.availability import availability_by
from harmony_pi_topology.common.log_tail import printable
from harmony_pi_topology.common.worker import Worker
from harmony_pi_topology.posix.errors import translate_errors
from harmony_pi_topology.systemd.sdbus import (
    ANSWER_WITHIN_S,
    FoundJob,
    Properties,
    SystemdBus,
    exec_start,
)
from harmony_pi_topology.systemd.waker import Waker

from .reconciler import Jobs, Permission, Sight
from .watch import QuestionWatcher

__all__ = ["Engine", "SystemdJobs", "mounts_of", "service_of"]

_DIRECTORY: Final = "/run/harmony/jobs"
_MOUNT = "run-harmony-jobs-{}.mount"
_TAIL_BYTES = 1024
_MOST_TASKS = 64
_MOST_TASKS_PRIVILEGED = 512
_READ_WITHIN_S = 10.0
_LET_GO_WITHIN_S = 15.0
_CGROUP_NAMESPACES = 0x0200_0000
"""CLONE_NEWCGROUP of clone(2)."""


class SystemdJobs(Jobs):
    """The systemd on the bus at *address*, or this machine's; *root* is where its files are read.

    *policy* is asked before anything is undone: whoever allowed the job may since have thought better of it.
    """

    def __init__(
        self,
        *,
        records: Records,
        policy: Permission,
        address: str | None = None,
        root: str | Path = "/",
        answer_within_s: float = ANSWER_WITHIN_S,
    ) -> None:
        self._bus = SystemdBus(address, waker=Waker(root), answer_within_s=answer_within_s)
        self._systemd = Engine(self._bus, Path(root))
        super().__init__(self._systemd, records, policy)
        self._watcher = QuestionWatcher(str(root), self.ask)

    async def converge(
        self, resources: Sequence[Job], *, apply: bool
    ) -> Sequence[Change | Exception]:
        for job in resources:
            self._watcher.note(job)
        return await super().converge(resources, apply=apply)

    async def availability(self) -> Availability:
        """Return whether systemd answers."""
        await self._watcher.mend()
        return await availability_by(self._bus.ping)

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Report each job that is needed again, once a file has changed on which its answer depends; nothing
        else: one that runs is looked at again anyway, and one that has ended stays so."""
        await self._watcher.watch(keys, on_change)

    async def close(self) -> None:
        await self._watcher.close()
        self._bus.close()
        self._systemd.close()


class Engine:
    """A `JobEngine`."""

    def __init__(self, bus: SystemdBus, root: Path) -> None:
        self._bus = bus
        self._root = root
        self._files = Worker("job-output", threads=1, timeout_s=_READ_WITHIN_S)

    @property
    def boot_id(self) -> str:
        return self._boot_id

    @cached_property
    def _boot_id(self) -> str:
        path = self._root / "proc/sys/kernel/random/boot_id"
        with translate_errors(str(path), doing="read"):
            return path.read_text().strip()

    def now(self) -> str:
        return rfc3339(datetime.now(UTC))

    async def begin(self, job: Job, name: str) -> None:
        await self._files.run(self.make_room, name)
        await self._bus.run(_unit(name), service_of(job, name), mounts_of(job, name))

    async def look(self, name: str) -> Sight | None:
        found = await self._bus.look_at_job(_unit(name))
        if found is None:
            return None
        end = await self._end(name, found) if found.has_ended else None
        # Not begun yet, when it was only just asked for.
        since = rfc3339(read_microseconds(found.started_us)) if found.started_us else self.now()
        return Sight(since=since, age_s=found.age_s, end=end)

    async def let_go(self, name: str) -> None:
        try:
            async with asyncio.timeout(_LET_GO_WITHIN_S):
                await self._bus.forget(_unit(name))
                if await self._files.run(self.is_there, name):
                    await self._bus.forget(_mount(name))
        except TimeoutError:
            raise TimedOut(
                f"{_unit(name)} was not ended within {_LET_GO_WITHIN_S:g} s; it is tried again later"
            ) from None
        await self._files.run(self.delete, name)

    def close(self) -> None:
        self._files.close()

    async def _end(self, name: str, found: FoundJob) -> Finished:
        out, err = await self._files.run(self.tails, name)
        return Finished(
            at=rfc3339(read_microseconds(found.ended_us)) if found.ended_us else self.now(),
            exit_code=found.exit_code,
            result=found.result,
            sha256="",
            stdout=out,
            stderr=err,
        )

    def make_room(self, name: str) -> None:
        """Make the directory that its streams are written to. This, and what follows, blocks."""
        directory = self._directory(name)
        with translate_errors(str(directory), doing="made"):
            directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.mkdir(mode=0o700, exist_ok=True)

    def is_there(self, name: str) -> bool:
        """Return whether there is anything of what it has written."""
        directory = self._directory(name)
        with translate_errors(str(directory), doing="looked at"):
            return directory.exists()

    def delete(self, name: str) -> None:
        """Delete what it has written."""
        directory = self._directory(name)
        with translate_errors(str(directory), doing="emptied"), suppress(FileNotFoundError):
            for path in directory.iterdir():
                path.unlink()
        with suppress(OSError):  # where the agent still sees what was mounted, it stays, empty
            directory.rmdir()

    def tails(self, name: str) -> tuple[str, str]:
        """Return the last of its two streams."""
        directory = self._directory(name)
        with translate_errors(str(directory), doing="read"):
            return _tail(directory / "out"), _tail(directory / "err")

    def _directory(self, name: str) -> Path:
        return self._root / _directory(name).lstrip("/")


def _tail(path: Path) -> str:
    """Return the end of what was written, as text that cannot control the terminal that shows it."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            data = file.read(_TAIL_BYTES)
    except FileNotFoundError:
        return ""
    return printable(data)


def _unit(name: str) -> str:
    return f"harmony-job-{name}.service"


def _mount(name: str) -> str:
    """Return the unit that mounts what `_directory` names, escaped as in systemd.unit(5)."""
    return _MOUNT.format(name.replace("-", r"\x2d"))


def _directory(name: str) -> str:
    return f"{_DIRECTORY}/{name}"


def mounts_of(job: Job, name: str) -> list[tuple[str, Properties]]:
    """Return what is mounted before *job* is begun: room for its two streams and no more, if it is
    privileged."""
    if not job.privileged:
        return []
    options = f"mode=0700,size={2 * job.output_bytes},nr_inodes=16,nosuid,nodev,noexec"
    properties: Properties = [
        ("Description", ("s", f"Output of Harmony job {job.name}")),
        ("What", ("s", "tmpfs")),
        ("Type", ("s", "tmpfs")),
        ("Options", ("s", options)),
        ("LazyUnmount", ("b", True)),  # also from under what it has left running
    ]
    return [(_mount(name), properties)]


def service_of(job: Job, name: str) -> Properties:
    """Return the properties that systemd gets for *job*. See systemd.exec(5), and org.freedesktop.systemd1(5)
    for the types."""
    directory = _directory(name)
    mounts = [mount for mount, _ in mounts_of(job, name)]
    environment = [f"{name}={value}" for name, value in sorted(job.environment.items())]
    return [
        ("Description", ("s", f"Harmony job {job.name}")),
        ("Type", ("s", "exec")),
        exec_start(job.command),
        # Kept when it has ended, so that whoever looks later sees how.
        ("RemainAfterExit", ("b", True)),
        ("CollectMode", ("s", "inactive")),
        ("RuntimeMaxUSec", ("t", round(job.time_limit_s * 1e6))),
        ("TimeoutStopUSec", ("t", 5_000_000)),
        ("Environment", ("as", environment)),
        ("StandardInput", ("s", "null")),
        ("StandardOutputFileToTruncate", ("s", f"{directory}/out")),
        ("StandardErrorFileToTruncate", ("s", f"{directory}/err")),
        ("Requires", ("as", mounts)),
        ("After", ("as", mounts)),
        ("Nice", ("i", 10)),
        ("LimitCORE", ("t", 0)),
        ("LimitAS", ("t", job.memory_bytes)),
        ("TasksMax", ("t", _MOST_TASKS_PRIVILEGED if job.privileged else _MOST_TASKS)),
        *([] if job.privileged else _confinement(job)),
    ]


def _confinement(job: Job) -> Properties:
    yes, nothing = ("b", True), ("t", 0)
    network = ["AF_UNIX", *(["AF_INET", "AF_INET6", "AF_NETLINK"] if job.network else [])]
    return [
        ("DynamicUser", yes),
        ("ProtectSystem", ("s", "strict")),
        ("ProtectHome", ("s", "yes")),
        ("ProtectProc", ("s", "invisible")),
        ("PrivateTmp", yes),
        ("PrivateDevices", yes),
        ("PrivateNetwork", ("b", not job.network)),
        ("RestrictAddressFamilies", ("(bas)", (True, network))),
        ("CapabilityBoundingSet", nothing),
        ("AmbientCapabilities", nothing),
        ("NoNewPrivileges", yes),
        ("ProtectKernelTunables", yes),
        ("ProtectKernelModules", yes),
        ("ProtectKernelLogs", yes),
        ("ProtectControlGroups", yes),
        ("ProtectClock", yes),
        ("ProtectHostname", yes),
        # Not none: where all units are read anew before it runs, that would be read as all of them. This one
        # cannot be made without a capability.
        ("RestrictNamespaces", ("t", _CGROUP_NAMESPACES)),
        ("RestrictRealtime", yes),
        ("RestrictSUIDSGID", yes),
        ("LockPersonality", yes),
        ("SystemCallFilter", ("(bas)", (True, ["@system-service"]))),
        ("SystemCallArchitectures", ("as", ["native"])),
        ("InaccessiblePaths", ("as", ["-/run/dbus", "-/run/systemd/private", "-/run/podman"])),
        ("UMask", ("u", 0o077)),
        ("LimitFSIZE", ("t", job.output_bytes)),
    ]

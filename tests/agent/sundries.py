"""Sundry things that a Score may want of a device in memory, and what somebody else does to them.

Each is compared whole: as it is found, as it was before anybody wanted it, and as it is in one of our
colours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from harmony_core import (
    Container,
    Directory,
    File,
    HasContainers,
    HasDirectories,
    HasFiles,
    HasSystemd,
    Inventory,
    Outcome,
    Score,
    SystemdUnit,
    outcome_of,
)
from harmony_core.resources import Running
from harmony_core.testing import FakePi, Program, ServiceProgram

__all__ = ["BAD", "GOOD", "HELD", "THINGS", "Foreign", "Sundry", "Thing", "equipped", "is_bad"]

GOOD, BAD = ("red", "blue"), "bad"
"""What is bad ends at once, if it is something that is started at all."""
HELD = b'{"owner": "recorder", "reason": "writes the archive"}'


class Thing(Protocol):
    """One resource, whether it is there or not."""

    @property
    def deeds(self) -> Sequence[str]:
        """What somebody may do to it."""
        ...

    async def lay(self, pi: FakePi) -> None:
        """As it is before anybody wants it."""

    async def found(self, pi: FakePi) -> object:
        """How it is, comparable."""

    def resolve_desired(self, colour: str) -> object:
        """How it is found where it is wanted in this colour."""

    async def meddle(self, pi: FakePi, deed: str) -> None: ...

    def breaks(self, pi: FakePi, error: Exception) -> None:
        """Whoever has to do with it is answered by *error* from now on."""


@attrs.frozen
class AFile:
    path: str
    prior: bytes | None = None
    deeds: Sequence[str] = ("write", "delete")

    def resource(self, colour: str) -> File:
        return File(path=self.path, content=colour.encode(), mode=0o640)

    async def lay(self, pi: FakePi) -> None:
        if self.prior is not None:
            pi.files.write(self.path, self.prior, mode=0o600)

    async def found(self, pi: FakePi) -> object:
        content = pi.files.read(self.path)
        return None if content is None else (content, pi.files.mode(self.path))

    def resolve_desired(self, colour: str) -> object:
        return colour.encode(), 0o640

    async def meddle(self, pi: FakePi, deed: str) -> None:
        if deed == "write":
            pi.files.write(self.path, b"theirs")
        else:
            pi.files.delete(self.path)

    def breaks(self, pi: FakePi, error: Exception) -> None:
        pi.files.faults[self.path] = error


@attrs.frozen
class ADirectory:
    path: str
    prior: int | None = None
    deeds: Sequence[str] = ("chmod", "rmdir")

    def resource(self, colour: str) -> Directory:
        return Directory(path=self.path, mode=_shade(colour))

    async def lay(self, pi: FakePi) -> None:
        if self.prior is not None:
            pi.directories.make_directory(self.path)
            pi.directories.chmod(self.path, self.prior)

    async def found(self, pi: FakePi) -> object:
        return pi.directories.mode(self.path) if pi.directories.exists(self.path) else None

    def resolve_desired(self, colour: str) -> object:
        return _shade(colour)

    async def meddle(self, pi: FakePi, deed: str) -> None:
        if deed == "rmdir":
            pi.files.remove_directory(self.path)
        elif pi.directories.exists(self.path):
            pi.directories.chmod(self.path, 0o777)

    def breaks(self, pi: FakePi, error: Exception) -> None:
        """Nothing does."""


@attrs.frozen
class AUnit:
    name: str
    prior: str | None = None
    """What one ran that was there, enabled and active."""
    deeds: Sequence[str] = ("stop", "disable", "kill", "edit", "delete")

    @property
    def file(self) -> str:
        return f"/etc/systemd/system/{self.name}"

    def resource(self, colour: str) -> SystemdUnit:
        return SystemdUnit(name=self.name, content=_unit_file(colour), settle_s=0)

    async def lay(self, pi: FakePi) -> None:
        if self.prior is not None:
            pi.systemd.write(self.file, _unit_file(self.prior).encode())
            await pi.systemd.reload()
            await pi.systemd.enable(self.name)
            await pi.systemd.start(self.name)

    async def found(self, pi: FakePi) -> object:
        enabled = await pi.systemd.is_enabled(self.name)
        return pi.systemd.read(self.file), enabled, await pi.systemd.command(self.name)

    def resolve_desired(self, colour: str) -> object:
        return _unit_file(colour).encode(), True, f"/usr/bin/{colour}"

    async def meddle(self, pi: FakePi, deed: str) -> None:
        match deed:
            case "stop":
                await pi.systemd.stop(self.name)
            case "disable":
                await pi.systemd.disable(self.name)
            case "kill":
                if await pi.systemd.command(self.name):
                    await pi.systemd.kill(self.name)
            case "edit":
                pi.systemd.write(self.file, _unit_file("theirs").encode())
            case _:
                pi.files.delete(self.file)

    def breaks(self, pi: FakePi, error: Exception) -> None:
        pi.systemd.faults[self.name] = error


@attrs.frozen
class AContainer:
    name: str
    deeds: Sequence[str] = ("stop", "kill", "delete", "hold")

    def resource(self, colour: str) -> Container:
        return Container(
            name=self.name,
            image=_image(colour),
            command=(colour,),
            restart="no",
            settle_s=0,
            max_hold_s=600,
        )

    async def lay(self, pi: FakePi) -> None:
        """Not there: what has its name, and is not ours, would never be."""

    async def found(self, pi: FakePi) -> object:
        state = await pi.containers.observe(self.name)
        return None if state is None else (state.image, isinstance(state, Running))

    def resolve_desired(self, colour: str) -> object:
        return _image(colour), True

    async def meddle(self, pi: FakePi, deed: str) -> None:
        if await pi.containers.identity(self.name) is None:
            return
        match deed:
            case "stop":
                await pi.containers.stop(self.name)
            case "kill":
                await pi.containers.kill(self.name)
            case "delete":
                await pi.containers.delete(self.name)
            case _:
                await pi.containers.write_hold(self.name, HELD)

    def breaks(self, pi: FakePi, error: Exception) -> None:
        pi.containers.faults[self.name] = error


_ALL: dict[str, AFile | ADirectory | AUnit | AContainer] = {
    **{path: AFile(path) for path in ("/etc/app/a", "/etc/app/b", "/etc/app/c", "/srv/d")},
    "/etc/taken": AFile("/etc/taken", prior=b"as it was"),
    "/srv/made": ADirectory("/srv/made"),
    "/srv/taken": ADirectory("/srv/taken", prior=0o705),
    "made.service": AUnit("made.service"),
    "taken.service": AUnit("taken.service", prior="theirs-before"),
    "box": AContainer("box"),
    "crate": AContainer("crate"),
}
THINGS: Mapping[str, Thing] = {**_ALL}


def is_bad(name: str, colour: str) -> bool:
    """Whether it cannot be brought up."""
    return colour == BAD and isinstance(THINGS[name], AUnit | AContainer)


class SundryHost(HasFiles, HasDirectories, HasSystemd, HasContainers, Protocol):
    """A host for sundries."""


class Sundry(Score[SundryHost]):
    """Some of the things, in one colour."""

    names: tuple[str, ...]
    colour: str

    async def interpret(self, inventory: Inventory, topology: SundryHost) -> Outcome:
        wanted = [_ALL[name].resource(self.colour) for name in self.names]
        return outcome_of(
            await topology.files.ensure(*(each for each in wanted if isinstance(each, File))),
            await topology.directories.ensure(
                *(each for each in wanted if isinstance(each, Directory))
            ),
            await topology.systemd.ensure(
                *(each for each in wanted if isinstance(each, SystemdUnit))
            ),
            await topology.containers.ensure(
                *(each for each in wanted if isinstance(each, Container))
            ),
        )


class Foreign:
    """What is on the device and no concern of ours."""

    async def lay(self, pi: FakePi) -> None:
        pi.files.write("/etc/app/foreign", b"foreign", mode=0o604)
        await AUnit("foreign.service", prior="foreign").lay(pi)
        await pi.containers.make_strange("foreign")

    async def identities(self, pi: FakePi) -> object:
        """What is the same for as long as nobody touches them."""
        return (
            pi.files.identity("/etc/app/foreign"),
            await AUnit("foreign.service").found(pi),
            await pi.systemd.identity("foreign.service"),
            await pi.containers.identity("foreign"),
        )


async def equipped() -> FakePi:
    """A device with what is foreign, and what was there before us."""
    pi = FakePi()
    pi.systemd.programs[f"/usr/bin/{BAD}"] = ServiceProgram(exit_code=3, log=("no database",))
    pi.containers.programs[(BAD,)] = Program(exit_code=3, log=("no database",))
    await Foreign().lay(pi)
    for each in THINGS.values():
        await each.lay(pi)
    return pi


def _unit_file(colour: str) -> str:
    return f"[Service]\nExecStart=/usr/bin/{colour}\n[Install]\nWantedBy=multi-user.target\n"


def _shade(colour: str) -> int:
    return {"red": 0o750, "blue": 0o711, BAD: 0o700}[colour]


def _image(colour: str) -> str:
    return f"registry.example/{colour}@sha256:{len(colour):064x}"

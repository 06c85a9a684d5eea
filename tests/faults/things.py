"""What a Score of the fleet under faults may want of a device, and how each is found to be so or not.

Looked at on the disk, and in what the stand-in daemons hold: never by what an agent says.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from harmony_core.score import Score
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, DirectoryScore, FileScore, SystemdServiceScore

if TYPE_CHECKING:
    from tests.faults.device import Device

__all__ = ["EVIL", "FILES", "THINGS", "UNITS", "Thing", "Wish", "is_right", "lay", "wrong"]

Wish = Mapping[str, str]
"""What is wanted: the colour of each thing, by its name. A thing that is not in it shall not be there."""

EVIL: Final = "/srv/evil"
"""What only a manifest wants that no operator has signed."""
_IMAGE = "registry.example/web@sha256:" + 64 * "a"
_SETTLE_S = 0.1
_FILLER = 40 * "the quick brown fox jumps over the lazy dog\n"


class Thing(Protocol):
    """One resource that may be wanted, in one of many colours."""

    def score(self, colour: str) -> Score[PiTopology]: ...

    def wrong(self, device: Device, colour: str | None) -> Iterator[str]:
        """Say what is not so. *colour* None: it is not wanted."""
        ...


@attrs.frozen
class AFile:
    """A file; with *prior*, one that was there before us."""

    path: str
    prior: str | None = None

    def score(self, colour: str) -> Score[PiTopology]:
        return FileScore(path=self.path, content=self.text(colour), mode=self.mode(colour))

    def text(self, colour: str) -> str:
        return f"{colour}\n{_FILLER}"

    def mode(self, colour: str) -> int:
        return 0o600 if colour.endswith(("0", "2", "4", "6", "8")) else 0o640

    def wrong(self, device: Device, colour: str | None) -> Iterator[str]:
        found = _read(f"{device.root}{self.path}")
        wanted = None if self.prior is None else (self.prior, 0o604)
        if colour is not None:
            wanted = (self.text(colour), self.mode(colour))
        if found != wanted:
            yield f"{self.path} is {_first_line(found)}, not {_first_line(wanted)}"


@attrs.frozen
class ADirectory:
    """A directory; with *prior*, the mode of one that was there before us."""

    path: str
    prior: int | None = None

    def score(self, colour: str) -> Score[PiTopology]:
        return DirectoryScore.model_validate(
            {"path": self.path, "mode": f"{self.mode(colour):04o}"}
        )

    def mode(self, colour: str) -> int:
        return 0o700 | int(colour.removeprefix("c")) % 0o100

    def wrong(self, device: Device, colour: str | None) -> Iterator[str]:
        try:
            mode = os.lstat(f"{device.root}{self.path}").st_mode
        except FileNotFoundError:
            mode = 0
        found = stat.S_IMODE(mode) if stat.S_ISDIR(mode) else None
        wanted = self.prior if colour is None else self.mode(colour)
        if found != wanted:
            yield f"{self.path} has mode {found}, not {wanted}"


@attrs.frozen
class AUnit:
    """A service."""

    name: str

    def score(self, colour: str) -> Score[PiTopology]:
        return SystemdServiceScore(
            name=self.name,
            exec_start=("/usr/bin/sleep", "infinity"),
            environment={"COLOUR": colour},
            settle_s=_SETTLE_S,
        )

    def wrong(self, device: Device, colour: str | None) -> Iterator[str]:
        held = device.systemd.units[self.name]
        text, mode = _read(str(held.file)) or (None, 0o644)
        is_enabled = held.link.is_symlink()
        if colour is None:
            if text is not None or held.runs_from is not None or is_enabled:
                yield f"{self.name} is not wanted, and is there: {held.runs_from or text}"
            return
        for what, said in (("its file is", text), ("it runs from", held.runs_from)):
            if said is None or f"COLOUR={colour}\n" not in f"{said}\n".replace('"', ""):
                yield f"{self.name} is to be {colour}; {what} {said}"
        if not is_enabled:
            yield f"{self.name} is not enabled"
        if mode != 0o644:
            yield f"the file of {self.name} has another mode"


@attrs.frozen
class AContainer:
    name: str

    def score(self, colour: str) -> Score[PiTopology]:
        return ContainerScore(
            name=self.name,
            image=_IMAGE,
            environment={"COLOUR": colour},
            stop_timeout_s=2,
            settle_s=_SETTLE_S,
        )

    def wrong(self, device: Device, colour: str | None) -> Iterator[str]:
        others = [
            each.name
            for each in device.podman.containers.values()
            if each.name != self.name and each.name.startswith(self.name)
        ]
        if others:
            yield f"beside {self.name} there are {others}"
        found = device.podman.named(self.name)
        if colour is None:
            if found is not None:
                yield f"container {self.name} is not wanted, and is {found.status}"
        elif found is None or found.status != "running":
            yield f"container {self.name} is {found.status if found else 'not there'}"
        elif found.environment.get("COLOUR") != colour:
            yield f"container {self.name} is {found.environment}, not {colour}"


FILES: Final[Mapping[str, AFile]] = {
    "file-1": AFile("/srv/app/one"),
    "file-2": AFile("/srv/app/deep/two"),
    "file-3": AFile("/etc/app/three.conf"),
    "taken-file": AFile("/etc/taken.conf", prior="as it was\n"),
}
THINGS: Final[Mapping[str, Thing]] = {
    **FILES,
    "folder": ADirectory("/srv/folder"),
    "taken-folder": ADirectory("/srv/taken", prior=0o705),
    "unit-1": AUnit("unit-1.service"),
    "unit-2": AUnit("unit-2.service"),
    "box-1": AContainer("box-1"),
    "box-2": AContainer("box-2"),
}
UNITS: Final = ("unit-1.service", "unit-2.service")


def lay(root: Path) -> None:
    """Make *root* what a device is before anybody wants anything of it."""
    for name in ("etc/systemd/system", "srv/taken", "usr/share/containers", "run/harmony"):
        (root / name).mkdir(parents=True)
    (root / "usr/share/containers/seccomp.json").write_text('{"syscalls": []}')  # podman's own
    (root / "srv/taken").chmod(0o705)
    (root / "etc/taken.conf").write_text("as it was\n")
    (root / "etc/taken.conf").chmod(0o604)


def wrong(device: Device, wish: Wish) -> list[str]:
    """Say what on *device* is not as *wish* has it."""
    found = [each for name in THINGS for each in THINGS[name].wrong(device, wish.get(name))]
    if os.path.lexists(f"{device.root}{EVIL}"):
        found.append(f"{EVIL} is there, which nobody has signed")
    return found


def is_right(device: Device, wish: Wish) -> bool:
    """Return whether *device* is as *wish* has it, at the least cost."""
    return not any(True for name in THINGS for _ in THINGS[name].wrong(device, wish.get(name)))


def _read(path: str) -> tuple[str, int] | None:
    """Return what is in a file, and its mode; None where there is none. Asked very often: without `Path`."""
    try:
        with open(path) as file:  # noqa: PTH123
            return file.read(), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except FileNotFoundError:
        return None


def _first_line(found: tuple[str, int] | None) -> str:
    if found is None:
        return "absent"
    text, mode = found
    return f"{text.partition(chr(10))[0]!r} with mode {mode:04o}"

"""Things that a Score can make of a Pi: what each is like when wanted or not, and what hands do to it.

All is read by the box's own tools, and so is what an agent says of it: `wrong` and `untrue` are sentences.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import attrs

from harmony_core.score import Score
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, DirectoryScore, FileScore, SystemdServiceScore
from tests.fleet.ground import Host, in_shell

__all__ = ["AContainer", "ADirectory", "AFile", "AUnit", "Foreign", "Thing"]

THEIRS = "theirs\n"


class Thing(Protocol):
    """One resource that may be wanted, in one of several *colours*."""

    @property
    def name(self) -> str: ...

    @property
    def deeds(self) -> Sequence[str]:
        """What somebody may do to it by hand: shell commands, whether it is there or not."""
        ...

    def score(self, colour: str) -> Score[PiTopology]: ...

    def lay(self, host: Host) -> None:
        """As it is before anybody wants it."""

    def wrong(self, host: Host, colour: str | None, *, touched: bool) -> Iterator[str]:
        """What is not so. *colour* None: not wanted. *touched*: there were hands on it."""
        ...

    def untrue(self, host: Host, told: Mapping[str, Any]) -> Iterator[str]:
        """What is told of it and is not so."""
        ...


@attrs.frozen
class AFile:
    """A file; with *prior*, one that was there before us."""

    name: str
    path: str
    prior: str | None = None

    @property
    def deeds(self) -> Sequence[str]:
        return (
            f"echo {THEIRS.strip()} > {self.path}",
            f"rm -f {self.path}",
            f"chmod 0604 {self.path}",
        )

    def score(self, colour: str) -> Score[PiTopology]:
        return FileScore(path=self.path, content=f"{colour}\n", mode=0o640)

    def lay(self, host: Host) -> None:
        if self.prior is None:
            _path(host, self.path).unlink(missing_ok=True)
            # A directory of ours that only a stranger's file has kept.
            host.box.run(["rmdir", "-p", str(PurePosixPath(self.path).parent)], check=False)
        else:
            host.box.write(self.path, self.prior, mode=0o600)

    def wrong(self, host: Host, colour: str | None, *, touched: bool) -> Iterator[str]:
        path = _path(host, self.path)
        found = (path.read_text(), _mode(path)) if path.exists() else None
        if colour is not None:
            if found != (f"{colour}\n", 0o640):
                yield f"{self.path} is {found}, not {colour}"
        elif touched:
            if found is not None and found[0] not in {THEIRS, self.prior}:
                yield f"{self.path} is nobody's any more, and is {found}"
        elif found != (None if self.prior is None else (self.prior, 0o600)):
            yield f"{self.path} is not as it was: {found}"

    def untrue(self, host: Host, told: Mapping[str, Any]) -> Iterator[str]:
        path = _path(host, self.path)
        found = {
            "state": "PresentAt",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "mode": f"{_mode(path):04o}",
            "size_bytes": path.stat().st_size,
        }
        yield from _differences(self.path, told, found)


@attrs.frozen
class ADirectory:
    """A directory; with *prior*, the mode of one that was there before us."""

    name: str
    path: str
    prior: int | None = None

    @property
    def deeds(self) -> Sequence[str]:
        return (f"chmod 0777 {self.path}", f"rmdir {self.path}")

    def score(self, colour: str) -> Score[PiTopology]:
        return DirectoryScore(path=self.path, mode=_shade(colour))

    def lay(self, host: Host) -> None:
        path = _path(host, self.path)
        if self.prior is not None:
            path.mkdir(exist_ok=True)
            path.chmod(self.prior)
        elif path.exists():
            path.rmdir()

    def wrong(self, host: Host, colour: str | None, *, touched: bool) -> Iterator[str]:
        path = _path(host, self.path)
        found = _mode(path) if path.is_dir() else None
        if colour is not None:
            if found != _shade(colour):
                yield f"{self.path} is {found}, not {_shade(colour)}"
        elif touched:
            if self.prior is None and found is not None:
                yield f"{self.path} is nobody's any more, and still there"
        elif found != self.prior:
            yield f"{self.path} is not as it was: {found}"

    def untrue(self, host: Host, told: Mapping[str, Any]) -> Iterator[str]:
        mode = f"{_mode(_path(host, self.path)):04o}"
        yield from _differences(self.path, told, {"state": "DirectoryAt", "mode": mode})


@attrs.frozen
class AUnit:
    name: str

    @property
    def unit(self) -> str:
        return f"{self.name}.service"

    @property
    def file(self) -> str:
        return f"/etc/systemd/system/{self.unit}"

    @property
    def deeds(self) -> Sequence[str]:
        return (
            f"systemctl stop {self.unit}",
            f"systemctl disable {self.unit}",
            f"systemctl kill -s KILL {self.unit}",
            f"rm -f {self.file}",
            f"sed -i '$a # by hand' {self.file}",
        )

    def score(self, colour: str) -> Score[PiTopology]:
        return SystemdServiceScore(
            name=self.unit,
            exec_start=("/usr/bin/sleep", "infinity"),
            environment={"COLOUR": colour},
            restart="no",
            settle_s=0.3,
        )

    def lay(self, host: Host) -> None:
        """Not there."""

    def wrong(self, host: Host, colour: str | None, *, touched: bool) -> Iterator[str]:
        found = host.unit(self.unit, "ActiveState", "UnitFileState", "MainPID")
        path = _path(host, self.file)
        if colour is None:
            if path.exists() or found["ActiveState"] not in {"inactive", "failed"}:
                yield f"{self.unit} is nobody's any more, and still there: {found}"
            return
        if (found["ActiveState"], found["UnitFileState"]) != ("active", "enabled"):
            yield f"{self.unit} is {found}"
            return
        if "by hand" in path.read_text():
            yield f"{self.unit} is not as it was written"
        environment = host.box.read(f"/proc/{found['MainPID']}/environ").split(b"\0")
        if f"COLOUR={colour}".encode() not in environment:
            yield f"{self.unit} runs, and is not {colour}"

    def untrue(self, host: Host, told: Mapping[str, Any]) -> Iterator[str]:
        found = host.unit(self.unit, "SubState", "Result")
        expected = {
            "state": "Active",
            "sub": found["SubState"],
            "result": found["Result"],
            "enabled": True,
        }
        yield from _differences(self.unit, told, expected)


@attrs.frozen
class AContainer:
    name: str
    image: str

    @property
    def deeds(self) -> Sequence[str]:
        return (
            f"podman stop -t 0 {self.name}",
            f"podman kill {self.name}",
            f"podman rm -f -t 0 {self.name}",
        )

    def score(self, colour: str) -> Score[PiTopology]:
        return ContainerScore(
            name=self.name,
            image=self.image,
            command=in_shell("sleep 86399"),
            environment={"COLOUR": colour},
            stop_timeout_s=2,
            settle_s=0.3,
        )

    def lay(self, host: Host) -> None:
        """Not there."""

    def wrong(self, host: Host, colour: str | None, *, touched: bool) -> Iterator[str]:
        found = host.container(self.name)
        if colour is None:
            if found is not None:
                yield f"{self.name} is nobody's any more, and still there"
        elif found is None or found["State"]["Status"] != "running":
            yield f"{self.name} does not run: {found and found['State']}"
        elif f"COLOUR={colour}" not in found["Config"]["Env"]:
            yield f"{self.name} runs, and is not {colour}"

    def untrue(self, host: Host, told: Mapping[str, Any]) -> Iterator[str]:
        found = host.container(self.name) or {"State": {"StartedAt": "never"}}
        expected = {"state": "Running", "since": found["State"]["StartedAt"][:19]}
        yield from _differences(self.name, {**told, "since": told.get("since", "")[:19]}, expected)


@attrs.frozen
class Foreign:
    """What is on the device and no concern of ours."""

    image: str

    def lay(self, host: Host) -> None:
        host.box.write("/etc/foreign.conf", "foreign\n", mode=0o604)
        host.box.write("/srv/foreign/file", "foreign\n", mode=0o640)
        host.box.write(
            "/etc/systemd/system/foreign.service",
            "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n",
        )
        host.box.run(["systemctl", "enable", "--now", "foreign.service"])
        run = ["podman", "run", "-d", "--name", "foreign", self.image]
        host.box.run([*run, *in_shell("sleep 86399")])

    def lasting(self, host: Host) -> dict[str, object]:
        """What not even a boot may change."""
        paths = ("/etc/foreign.conf", "/srv/foreign/file", "/etc/systemd/system/foreign.service")
        found = host.container("foreign") or {}
        unit = host.unit("foreign.service", "UnitFileState", "ActiveState")
        files = {path: host.file(path) for path in paths}
        return {"container": found.get("Id"), "unit": unit, **files}

    def passing(self, host: Host) -> dict[str, object]:
        """What nobody but a boot may change: how they run."""
        return host.identities(units=["foreign.service"], containers=["foreign"])


def _differences(name: str, told: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    for field, value in found.items():
        if told.get(field) != value:
            yield f"of {name} it is told that {field} is {told.get(field)!r}; it is {value!r}"


def _path(host: Host, path: str) -> Path:
    return host.box.root / path.lstrip("/")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _shade(colour: str) -> int:
    return {"red": 0o750, "blue": 0o711}[colour]

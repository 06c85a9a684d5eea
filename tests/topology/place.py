"""A root in a folder, beside a folder that nothing may reach, and all that can be done beneath a root."""

from __future__ import annotations

import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from harmony_pi_topology.posix import beneath
from harmony_pi_topology.posix.beneath import Opener, open_by_openat2, open_by_walking
from harmony_pi_topology.posix.root import Draft, Found, Root

__all__ = [
    "DEEDS",
    "NEW",
    "OLD",
    "ON_FILES",
    "RESOLVERS",
    "SECRET",
    "Deed",
    "Place",
    "opener_named",
    "place_in",
    "snapshot",
]

OLD, NEW, SECRET = b"old\n", b"new\n", b"not yours\n"
RESOLVERS = ("openat2", "walk")


@attrs.frozen
class Place:
    """`here` is the device's root; `outside` is what lies beside it."""

    here: Path
    outside: Path
    root: Root

    def at(self, path: str) -> Path:
        return self.here / path.lstrip("/")

    def put(self, path: str, content: bytes = OLD, mode: int = 0o644) -> Path:
        """A file as somebody else would write it."""
        file = self.at(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(mode)
        return file

    def write(self, path: str, content: bytes = NEW, mode: int = 0o644) -> Found:
        (found,) = self.root.write_many([Draft(path=path, content=content, mode=mode)])
        return found

    def names(self, path: str = "/") -> list[str]:
        return sorted(each.name for each in self.at(path).iterdir())


@contextmanager
def place_in(folder: Path, opener: Opener) -> Generator[Place]:
    """In the end nothing outside has changed, or this fails."""
    here, outside = folder / "root", folder / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "secret").write_bytes(SECRET)
    (outside / "inner/secret").write_bytes(SECRET)
    here.mkdir()
    before = snapshot(outside)
    with Root(str(here), opener=opener) as root:
        yield Place(here, outside, root)
    assert snapshot(outside) == before


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything in *folder*, and itself. A directory's time tells of every name ever made in it."""
    taken: dict[str, tuple[int, int, bytes]] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        facts = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(facts.st_mode) else b""
        taken[str(path)] = (facts.st_mode, facts.st_mtime_ns, content)
    return taken


def opener_named(name: str) -> Opener:
    """One of `RESOLVERS`; skips the test where this machine has it not."""
    if name == "walk":
        return open_by_walking
    if beneath.open_beneath is not open_by_openat2:
        pytest.skip("no openat2 here: the kernel is too old, or a filter forbids it")
    return open_by_openat2


Deed = Callable[[Root, str], object]


def _write(root: Root, path: str) -> object:
    return root.write_many([Draft(path=path, content=NEW, mode=0o644)])


def _change(root: Root, path: str) -> object:
    return root.change(path, mode=0o600)


def _read(root: Root, path: str) -> object:
    return root.read(path, max_bytes=1000)


def _hash(root: Root, path: str) -> object:
    return root.sha256(path)


def _remove(root: Root, path: str) -> object:
    return root.remove(path)


def _look(root: Root, path: str) -> object:
    return root.look(path)


def _make_parents(root: Root, path: str) -> object:
    return root.make_parents(path)


def _remove_empty(root: Root, path: str) -> object:
    return root.remove_empty([path])


ON_FILES: dict[str, Deed] = {
    "write": _write,
    "change": _change,
    "read": _read,
    "hash": _hash,
    "remove": _remove,
}
"""What is done to a regular file, and to nothing else."""
DEEDS: dict[str, Deed] = {
    **ON_FILES,
    "look": _look,
    "make parents": _make_parents,
    "remove empty": _remove_empty,
}

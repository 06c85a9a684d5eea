"""Whatever somebody does to a tree, and however fast: whoever looks when told knows the truth in the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import attrs
import pytest

from harmony_core.errors import CapabilityError
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_pi_topology.files.reconciler import PosixFiles
from harmony_pi_topology.posix.root import Root
from tests.soak import runs

_NAMES = ("a", "b")
_DIRECTORIES = ["", *(f"/{x}" for x in _NAMES), *(f"/{x}/{y}" for x in _NAMES for y in _NAMES)]
_PATHS = [f"{directory}/{name}" for directory in _DIRECTORIES for name in (*_NAMES, "file")]


@attrs.frozen
class Onlooker:
    """Looks at a path when it is told of it, and at no other time."""

    root: Root
    seen: dict[str, object] = attrs.Factory(dict[str, object])
    watched: set[str] = attrs.Factory(set[str])

    def told(self, path: str | None) -> None:
        for each in self.watched if path is None else {path} & self.watched:
            self.seen[each] = self.look(each)

    def look(self, path: str) -> object:
        try:
            found = self.root.look(path)
        except CapabilityError as error:
            return type(error)
        if found is None or found.kind == "file":
            return found
        # A directory's times tell of what is in it, which is another matter.
        return found.kind, found.inode, found.mode, found.uid, found.gid

    @property
    def knows_the_truth(self) -> bool:
        return all(self.seen.get(path) == self.look(path) for path in self.watched)


def somebody(root: Path, chance: random.Random, deeds: int) -> None:
    """Does what comes to mind. Most of it fails."""

    def at() -> Path:
        return Path(f"{root}{chance.choice(_PATHS)}")

    def replace() -> None:
        new = root / "new"
        new.write_bytes(chance.randbytes(chance.randrange(3)))
        new.rename(at())

    def write() -> None:
        at().write_bytes(chance.randbytes(chance.randrange(3)))

    possible: list[Callable[[], object]] = [
        *[lambda: at().mkdir()] * 4,
        lambda: at().unlink(),
        lambda: at().rmdir(),
        lambda: at().rename(at()),
        lambda: at().rename(at()),
        lambda: at().symlink_to(chance.choice((root.parent / "outside", root / "a", "b"))),
        lambda: (
            at().lchmod(0o600) if at().is_symlink() else at().chmod(chance.choice((0o700, 0o750)))
        ),
        *[write] * 3,
        replace,
    ]
    for _ in range(deeds):
        with suppress(OSError, NotImplementedError):
            chance.choice(possible)()


@pytest.mark.soak
async def test_whoever_looks_when_told_knows_the_truth_in_the_end(tmp_path: Path) -> None:
    for seed in range(runs(1000)):
        chance = random.Random(seed)
        here = tmp_path / f"{seed}"
        (here / "outside/a/b").mkdir(parents=True)
        (here / "root").mkdir()
        with Root(str(here / "root")) as root:
            await _one_life(here / "root", Onlooker(root), chance)


async def _one_life(root: Path, onlooker: Onlooker, chance: random.Random) -> None:
    files = PosixFiles(str(root), records=MemoryRecords(), backups=MemoryBackups())
    for _ in range(4):
        doing = asyncio.create_task(
            asyncio.to_thread(somebody, root, random.Random(chance.random()), 40)
        )
        for _ in range(chance.randrange(3)):
            before = set(onlooker.watched)
            keys = set(chance.sample(_PATHS, chance.randrange(1, 8)))
            onlooker.watched.intersection_update(keys)
            onlooker.watched.update(keys)
            await files.watch(keys, onlooker.told)
            for path in keys - before:
                onlooker.seen[path] = onlooker.look(path)
        await doing
    async with asyncio.timeout(20):
        while not onlooker.knows_the_truth:
            await asyncio.sleep(0.001)
    await files.close()

"""Trees from a directory beside a Score file to a device: pushed, changed, put right, and taken away."""

from __future__ import annotations

import random
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import permutations
from pathlib import Path

import attrs
import pytest

from harmony_agent import config as configuration
from harmony_agent.bus.connection import Bus as AgentBus
from harmony_agent.store.assets import AssetCache
from harmony_core.plugins import Registry
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_pi_topology.directories.posix import PosixDirectories
from harmony_pi_topology.files.reconciler import PosixFiles
from harmony_pi_topology.links.posix import PosixLinks
from harmony_scores import FileScore, TreeScore
from tests.control.ground import Said, harmony
from tests.device import running_agent
from tests.nats import Bus, serving

SCORE = "- {id: site, kind: TreeScore, spec: {path: /srv/nginx, files_from: ./nginx}}\n"
IMAGE = random.Random(1).randbytes(300_000)


@attrs.frozen
class Place:
    bus: Bus
    root: Path

    @property
    def here(self) -> Path:
        return self.root / "nginx"

    @property
    def there(self) -> Path:
        return self.root / "device/srv/nginx"

    async def harmony(self, command: str, *more: str, scores: str = SCORE) -> Said:
        file = self.root / "scores.yaml"
        file.write_text(scores)
        return await harmony(self.bus.home, command, "pi-1", str(file), *more)

    async def push(self, *more: str, scores: str = SCORE) -> Said:
        said = await self.harmony("push-score", *more, scores=scores)
        assert said.status == 0, said
        return said

    def listed(self, top: Path) -> dict[str, object]:
        """All that is in *top*: what a file has in it, and whether it is a program."""
        found: dict[str, object] = {}
        for each in sorted(top.rglob("*")):
            name = str(each.relative_to(top))
            if each.is_symlink():
                found[name] = str(each.readlink())
            elif each.is_dir():
                found[name] = None
            else:
                found[name] = (each.read_bytes(), bool(each.stat().st_mode & 0o100))
        return found

    def is_there(self) -> bool:
        return self.listed(self.there) == self.listed(self.here)

    @asynccontextmanager
    async def device(self) -> AsyncGenerator[None]:
        agent_bus = AgentBus.of(configuration.load(self.bus.home.agent_toml("pi-1")))
        assets = AssetCache(self.root / "agent/state/assets", agent_bus, most_bytes=64 * 1024**2)
        root, records = str(self.root / "device"), MemoryRecords()
        Path(root).mkdir(exist_ok=True)
        files = PosixFiles(root, records=records, backups=MemoryBackups(), assets=assets)
        directories = PosixDirectories(root, records=records)
        links = PosixLinks(root, records=records)
        async with running_agent(
            self.bus.home,
            "pi-1",
            self.root / "agent",
            registry=Registry([TreeScore, FileScore]),
            offers={"FileSystemHost": files, "DirectoryHost": directories, "LinkHost": links},
            missing={},
            bus=agent_bus,
            assets=assets,
        ):
            yield
        for each in (assets, files, directories, links):
            await each.close()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    here = tmp_path / "nginx"
    (here / "conf.d").mkdir(parents=True)
    (here / "cache").mkdir()
    (here / "nginx.conf").write_text("include conf.d/*.conf;\n")
    (here / "picture.png").write_bytes(IMAGE)
    (here / "run").write_text("#!/bin/sh\n")
    (here / "run").chmod(0o755)
    (here / "now").symlink_to("conf.d")
    for number in range(20):
        (here / "conf.d" / f"{number:02}.conf").write_text(f"listen {number};\n")
    async with serving(tmp_path, "pi-1") as bus:
        yield Place(bus, tmp_path)


async def test_it_comes_whole_changes_by_name_and_goes(place: Place) -> None:
    async with place.device():
        await place.push()
        assert place.is_there()
        assert "unchanged" in (await place.push()).out

        (place.here / "nginx.conf").write_text("include all.conf;\n")
        (place.here / "conf.d/07.conf").unlink()
        (place.here / "conf.d/new").mkdir()
        (place.here / "conf.d/new/20.conf").write_text("listen 20;\n")
        (place.here / "run").chmod(0o644)
        (place.there / "conf.d/theirs").write_text("somebody else's\n")
        said = await place.harmony("diff")
        assert "file:/srv/nginx/nginx.conf" in said.out, said
        assert "+include all.conf;" in said.out
        assert "file:/srv/nginx/conf.d/07.conf" in said.out
        assert "file:/srv/nginx/conf.d/new/20.conf" in said.out
        assert "mode 0755" in said.out
        assert "08.conf" not in said.out
        await place.push()
        theirs = place.there / "conf.d/theirs"
        assert theirs.read_text() == "somebody else's\n"
        assert place.listed(place.there).keys() - place.listed(place.here).keys() == {
            "conf.d/theirs"
        }

        said = await harmony(place.bus.home, "remove-score", "pi-1", "site")
        assert said.status == 0, said
        assert [*place.listed(place.there)] == ["conf.d", "conf.d/theirs"]
        assert place.there.is_dir()


async def test_a_directory_that_was_there_is_as_it_was_then_and_afterwards(place: Place) -> None:
    (place.here / "made/below").mkdir(parents=True)
    (place.here / "made/below/a").write_text("x")

    def modes() -> dict[str, int]:
        paths = ("", "conf.d", "cache", "made", "made/below")
        found = {each: place.there / each for each in paths}
        return {each: at.stat().st_mode & 0o7777 for each, at in found.items() if at.is_dir()}

    before = {"": 0o700, "conf.d": 0o2750, "cache": 0o1777}
    for path, mode in before.items():
        (place.there / path).mkdir(parents=True)
        (place.there / path).chmod(mode)
    async with place.device():
        await place.push()
        assert place.is_there()
        assert modes() == {**before, "made": 0o755, "made/below": 0o755}
        # What somebody sets on one that is ours stays, too, and it goes all the same.
        (place.there / "made/below").chmod(0o700)
        (place.here / "run").write_text("#!/bin/sh -e\n")
        await place.push()
        assert modes() == {**before, "made": 0o755, "made/below": 0o700}
        shutil.rmtree(place.here / "made")
        await place.push()
        assert modes() == before
        said = await harmony(place.bus.home, "remove-score", "pi-1", "site")
        assert said.status == 0, said
        assert modes() == before
        assert {*place.listed(place.there)} == {"conf.d", "cache"}


def _write(path: Path) -> None:
    path.write_text("other\n")


def _write_below(path: Path) -> None:
    (path / "sub").mkdir(parents=True)
    (path / "sub" / "a").write_text("other\n")


def _link(path: Path) -> None:
    path.symlink_to("run")


MAKE: dict[str, Callable[[Path], None]] = {"file": _write, "directory": _write_below, "link": _link}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


async def test_what_becomes_something_else_makes_way_for_that(place: Place) -> None:
    changes = list(permutations(MAKE, 2))
    for number, (before, _) in enumerate(changes):
        MAKE[before](place.here / f"it{number}")
    async with place.device():
        await place.push()
        for number, (_, after) in enumerate(changes):
            _remove(place.here / f"it{number}")
            MAKE[after](place.here / f"it{number}")
        said = await place.harmony("diff")
        assert said.status == 0, said
        assert "UnsafePath" not in said.out
        await place.push()
        assert place.is_there()
        said = await harmony(place.bus.home, "rollback", "pi-1", "--to", "1", "--yes")
        assert said.status == 0, said
        assert {(place.there / f"it{number}").is_symlink() for number in (4, 5)} == {True}
        assert (place.there / "it0").read_text() == "other\n"
        assert (place.there / "it2/sub/a").read_text() == "other\n"


async def test_what_others_have_put_in_the_way_stays(place: Place) -> None:
    _write_below(place.here / "it")
    async with place.device():
        await place.push()
        (place.there / "it" / "theirs").write_text("mine")
        _remove(place.here / "it")
        _write(place.here / "it")
        said = await place.harmony("push-score")
        assert said.status == 1, said
        assert "/srv/nginx/it is a directory, not a file; move it away" in said.out
        # Nothing of ours went in vain, either.
        assert (place.there / "it" / "theirs").read_text() == "mine"
        assert (place.there / "it" / "sub" / "a").read_text() == "other\n"
        _remove(place.there / "it")
        said = await harmony(place.bus.home, "reconcile", "pi-1")
        assert said.status == 0, said
        assert place.is_there()


AFTER = (
    '- {id: first, kind: FileScore, spec: {path: /srv/first, content: "%s"}}\n'
    "- {id: site, kind: TreeScore, after: [first], spec: {path: /srv/nginx, files_from: ./nginx}}\n"
)


async def test_it_makes_way_also_where_the_plan_was_made_before_what_it_stands_on(
    place: Place,
) -> None:
    _write(place.here / "it")
    async with place.device():
        await place.push(scores=AFTER % "one")
        _remove(place.here / "it")
        _write_below(place.here / "it")
        await place.push(scores=AFTER % "two")
        assert place.is_there()


FILE = "- {id: site, kind: FileScore, spec: {path: %s, content: hello}}\n"


async def test_a_file_makes_way_for_one_below_it_and_the_other_way_round(place: Place) -> None:
    async with place.device():
        for path in ("/srv/app", "/srv/app/conf", "/srv/app"):
            await place.push(scores=FILE % path)
            assert (place.root / f"device{path}").read_text() == "hello"


async def test_what_another_score_has_there_is_not_in_vain_taken_away(place: Place) -> None:
    other = "- {id: other, kind: FileScore, spec: {path: /srv/app/theirs, content: theirs}}\n"
    async with place.device():
        await place.push(scores=other + FILE % "/srv/app/conf")
        said = await place.harmony("push-score", scores=other + FILE % "/srv/app")
        assert said.status == 1, said
        assert "/srv/app is a directory, not a file" in said.out
        assert (place.root / "device/srv/app/conf").read_text() == "hello"
        assert (place.root / "device/srv/app/theirs").read_text() == "theirs"

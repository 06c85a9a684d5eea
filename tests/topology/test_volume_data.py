"""The data of volumes, saved and replaced, over containers in memory and a real disk: at rest, whole, and
safe from whatever an archive brings. What real podman does to it is in `test_volumes_in_box`."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar

import attrs
import pytest

from harmony_core.errors import (
    ArchiveRefused,
    CapabilityUnavailable,
    ContainerFailed,
    LoadTakenBack,
    NoRoom,
    VolumeBusy,
    VolumeMissing,
    WriteFailed,
)
from harmony_core.reconciler import JsonRecord, MemoryRecords
from harmony_core.volumes import ArchivedVolume, LoadedVolume
from harmony_pi_topology.containers.podman_reply import FoundContainer
from harmony_pi_topology.containers.quiet import TRANSFER
from harmony_pi_topology.volumes import archive
from harmony_pi_topology.volumes.data import VolumeData, VolumeDisk

P = ParamSpec("P")
T = TypeVar("T")
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class Died(BaseException):
    """The agent was killed: nothing of it happens any more."""


class Fate:
    """Kills the agent at the *at*-th thing that it does to the world: before it, or just after."""

    def __init__(self, at: int = -1, *, after: bool = False) -> None:
        self.at, self.after, self.count = at, after, 0
        self.is_over = False

    async def do(self, act: Callable[[], Awaitable[T]]) -> T:
        if self.is_over:
            raise Died
        self.count += 1
        if self.count - 1 != self.at:
            return await act()
        self.is_over = True
        if self.after:
            await act()
        raise Died


class Containers:
    """`VolumeHolders` in memory: they end where they do not like the data."""

    def __init__(self, place: Path, fate: Fate) -> None:
        self.place, self.fate = place, fate
        self.found: dict[str, FoundContainer] = {}
        self.said: list[str] = []
        self.cannot_pause = self.is_silent = False
        self.dislikes: Callable[[], bool] = lambda: False
        self.loops: set[str] = set()
        self._starts = 0

    def add(self, name: str, status: str = "running", *, ours: bool = True) -> None:
        labels = {"harmony.resource": f"container:{name}"} if ours else {}
        self.found[name] = FoundContainer(
            id=f"id of {name}",
            name=name,
            labels=labels,
            status=status,
            started_at=BEGINNING,
            finished_at=BEGINNING,
            exit_code=0,
            restarts=0,
            image="",
            stop_timeout_s=0,
            stopped_by_user=False,
        )

    def restart(self, name: str, restart: str, **changed: Any) -> None:
        """podman starts it again by itself, or would."""
        in_force: Any = SimpleNamespace(restart=restart)  # nothing else of it is asked
        self.found[name] = attrs.evolve(self.found[name], in_force=in_force, **changed)

    def crash(self, name: str) -> None:
        """Have it end, and podman start it again, between any two looks."""
        self.restart(name, "always", status="exited", exit_code=1)
        self.loops.add(name)

    def _go_round(self) -> None:
        for name in self.loops:
            if not (now := self.found[name]).stopped_by_user and now.status != "paused":
                self._starts += 1
                self.found[name] = attrs.evolve(
                    now,
                    status="exited" if now.status == "running" else "running",
                    started_at=BEGINNING + timedelta(seconds=self._starts),
                )

    def statuses(self) -> dict[str, str]:
        return {name: each.status for name, each in self.found.items()}

    async def find_place(self, volume: str) -> Path:
        if volume != "data":
            raise VolumeMissing(f"no volume {volume}")
        return self.place

    async def list_holders(self, volume: str) -> Sequence[FoundContainer]:
        found = list(self.found.values())
        self._go_round()
        return found

    async def look(self, name: str) -> FoundContainer | None:
        if self.is_silent:
            raise CapabilityUnavailable("podman does not answer")
        found = self.found.get(name)
        self._go_round()
        return found

    async def pause(self, found: FoundContainer) -> None:
        if self.cannot_pause:
            raise ContainerFailed(f"{found.name} cannot be paused")
        await self.fate.do(partial(self._become, "paused", found.name))

    async def stop(self, found: FoundContainer) -> None:
        await self.fate.do(partial(self._become, "exited", found.name))

    async def end(self, found: FoundContainer) -> None:
        await self.fate.do(partial(self._become, "exited", found.name))
        self.found[found.name] = attrs.evolve(self.found[found.name], stopped_by_user=True)

    async def start(self, found: FoundContainer) -> None:
        await self.fate.do(partial(self._start, found.name))

    async def _start(self, name: str) -> None:
        if self.found[name].status != "paused" and self.dislikes():
            self.found[name] = attrs.evolve(self.found[name], exit_code=1)
            return
        self.found[name] = attrs.evolve(self.found[name], stopped_by_user=False)
        await self._become("running", name)

    async def _become(self, status: str, name: str) -> None:
        self.said.append(f"{name} {status}")
        self._starts += 1
        self.found[name] = attrs.evolve(
            self.found[name],
            status=status,
            started_at=BEGINNING + timedelta(seconds=self._starts),
        )


class Disk(VolumeDisk):
    """The real one, until the agent is killed."""

    def __init__(self, fate: Fate) -> None:
        super().__init__()
        self._fate = fate

    async def _run(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._fate.do(lambda: super(Disk, self)._run(func, *args, **kwargs))

    async def _cut_short(self, func: Callable[..., T], /, *args: Any) -> T:
        return await self._fate.do(lambda: super(Disk, self)._cut_short(func, *args))


class Noted(MemoryRecords):
    """Records that outlive the agent."""

    def __init__(self) -> None:
        super().__init__()
        self.fate = Fate()

    async def put(self, resource_id: str, record: JsonRecord) -> None:
        await self.fate.do(lambda: super(Noted, self).put(resource_id, record))

    async def forget(self, resource_id: str) -> None:
        await self.fate.do(lambda: super(Noted, self).forget(resource_id))


async def settled() -> None:
    """Nobody changes anything here."""


class Place:
    """A volume with data, those who have it, and an agent that can be killed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "volumes" / "data" / "_data"
        self.data.mkdir(parents=True)
        (self.data / "it").write_text("old")
        self.records = Noted()
        self.containers = Containers(self.data, Fate())
        self.containers.add("web")
        self.volumes = self.begin()

    def begin(self, fate: Fate | None = None) -> VolumeData:
        """An agent is started."""
        self.fate = fate or Fate()
        self.records.fate = self.containers.fate = self.fate
        self.volumes = VolumeData(
            self.containers, Disk(self.fate), self.records, stays_up_s=0.0, comes_back_s=0.01
        )
        return self.volumes

    def archive(self, name: str = "new.tar", **files: str) -> Path:
        path = self.root / name
        with tarfile.open(path, "w") as tar:
            for each, text in (files or {"it": "new"}).items():
                entry = tarfile.TarInfo(each)
                entry.size = len(text)
                tar.addfile(entry, io.BytesIO(text.encode()))
        return path

    async def save(self, *, stop: bool = False) -> ArchivedVolume:
        into = self.root / "saved.tar"
        into.unlink(missing_ok=True)
        return await self.volumes.save(
            "data", into, stop=stop, settle=settled, tell=lambda _done, _of: None
        )

    async def load(self, path: Path | None = None, *, keep: bool = False) -> LoadedVolume:
        return await self.volumes.load(
            "data", path or self.archive(), keep_previous=keep, settle=settled
        )

    def content(self) -> dict[str, str]:
        return {each.name: each.read_text() for each in self.data.iterdir()}

    def has_new(self) -> bool:
        return self.content() == {"it": "new"}

    def beside(self) -> set[str]:
        return {each.name for each in self.data.parent.iterdir()} - {"_data"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def test_who_has_it_is_paused_while_it_is_saved_and_goes_on(place: Place) -> None:
    place.containers.add("idle", "exited")
    saved = await place.save()
    assert place.containers.said == ["web paused", "web running"]
    assert place.containers.statuses() == {"web": "running", "idle": "exited"}
    assert saved.rested == ("web",)
    assert saved.size_bytes == (place.root / "saved.tar").stat().st_size
    assert place.records.get(TRANSFER) is None


async def test_what_was_saved_is_loaded_with_all_that_a_file_has(place: Place) -> None:
    data = place.data
    (data / "sub").mkdir(mode=0o750)
    os.link(data / "it", data / "sub" / "same")
    (data / "away").symlink_to("/somewhere/../else")
    os.mkfifo(data / "fifo")
    with (data / "sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"middle")
    (data / "ä\n b").write_text("named")
    os.setxattr(data / "it", "user.note", b"\0mine")
    if os.geteuid() == 0:
        os.chown(data / "sub", 4711, 4712)
        os.setxattr(
            data / "ä\n b",
            "security.capability",
            bytes.fromhex("01000002" + "00040000" + 12 * "00"),
        )
    acl = bytes.fromhex(
        "0200000001000600ffffffff020004006712000004000400ffffffff10000400ffffffff20000000ffffffff"
    )
    os.setxattr(data / "it", "system.posix_acl_access", acl)
    os.utime(data / "it", ns=(1, 1_234_567_890_123_456_789))
    data.chmod(0o2770)
    before = facts(data)
    await place.save(stop=True)
    (data / "it").write_text("changed")
    (data / "more").write_text("more")
    await place.load(place.root / "saved.tar")
    assert facts(data) == before
    assert (data / "sparse").stat().st_blocks < 1024
    assert (place.root / "saved.tar").stat().st_size < 1 << 20
    assert place.beside() == set()


def facts(top: Path) -> dict[str, object]:
    """All that could differ of what is beneath *top*."""
    found: dict[str, object] = {}
    names = dict[int, str]()
    for path in sorted([top, *top.rglob("*")]):
        at = path.lstat()
        attributes = {
            each: os.getxattr(path, each, follow_symlinks=False)
            for each in os.listxattr(path, follow_symlinks=False)
        }
        first = names.setdefault(at.st_ino, str(path))
        times = at.st_mtime_ns if path.is_file() else 0
        content = path.read_bytes() if path.is_file() and at.st_size < 1 << 20 else at.st_size
        link = str(path.readlink()) if path.is_symlink() else ""
        found[str(path)] = (
            at.st_mode,
            at.st_uid,
            at.st_gid,
            first,
            times,
            content,
            link,
            attributes,
        )
    return found


async def test_what_cannot_be_paused_is_not_saved_and_says_how_it_can_be(place: Place) -> None:
    place.containers.cannot_pause = True
    with pytest.raises(VolumeBusy, match="--stop"):
        await place.save()
    assert place.containers.statuses() == {"web": "running"}
    assert not (place.root / "saved.tar").exists()
    assert (await place.save(stop=True)).rested == ("web",)


async def test_what_is_not_ours_is_paused_and_never_stopped(place: Place) -> None:
    place.containers.add("theirs", ours=False)
    assert (await place.save()).rested == ("theirs", "web")
    for act in (place.load, partial(place.save, stop=True)):
        with pytest.raises(VolumeBusy, match="theirs"):
            await act()
    assert place.containers.statuses() == {"web": "running", "theirs": "running"}
    assert place.content() == {"it": "old"}


async def test_a_full_disk_is_told_with_figures_before_anything_rests_for_long(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "ROOM_KEPT_BYTES", 1 << 60)
    with pytest.raises(NoRoom, match=r"has [\d.]+ MB: free [\d.]+ MB"):
        await place.save()
    with pytest.raises(NoRoom):
        await place.load()
    assert place.content() == {"it": "old"}
    assert place.containers.statuses() == {"web": "running"}
    assert place.beside() == set()


async def test_it_is_loaded_while_who_has_it_is_stopped(place: Place) -> None:
    loaded = await place.load()
    assert (loaded.rested, loaded.previous) == (("web",), "")
    assert place.containers.said == ["web exited", "web running"]
    assert place.content() == {"it": "new"}
    assert place.beside() == set()


async def test_the_data_from_before_is_kept_where_that_is_asked(place: Place) -> None:
    for text, before in (("new", "old"), ("newer", "new")):
        loaded = await place.load(place.archive(it=text), keep=True)
        assert place.content() == {"it": text}
        assert (Path(loaded.previous) / "it").read_text() == before
    assert place.beside() == {"harmony-previous"}


async def test_data_that_a_container_cannot_start_with_is_taken_back(place: Place) -> None:
    place.containers.dislikes = place.has_new
    with pytest.raises(LoadTakenBack, match="web has ended"):
        await place.load(keep=True)
    assert place.content() == {"it": "old"}
    assert place.containers.statuses() == {"web": "running"}
    assert place.beside() == set()
    assert place.records.get(TRANSFER) is None


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("dislikes", [False, True])
async def test_killed_at_any_step_of_a_load_it_has_the_old_data_or_the_new_whole(
    tmp_path: Path, after: bool, dislikes: bool
) -> None:
    step = 0
    while True:
        place = Place(tmp_path / f"{step}")
        if dislikes:
            place.containers.dislikes = place.has_new
        fate = Fate(step, after=after)
        place.begin(fate)
        with suppress(Died), pytest.raises(LoadTakenBack) if dislikes else nullcontext():
            await place.load()
        if not fate.is_over:
            break
        assert place.content() in ({"it": "old"}, {"it": "new"}), f"killed at step {step}"
        again = place.begin()
        await again.recover()
        assert place.content() in ({"it": "old"}, {"it": "new"}), f"recovered from step {step}"
        assert place.content() != {"it": "new"} or not dislikes
        assert place.containers.statuses() == {"web": "running"}, f"recovered from step {step}"
        assert place.beside() == set(), f"recovered from step {step}"
        assert place.records.get(TRANSFER) is None
        step += 1
    assert step > 8


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("stop", [False, True])
async def test_killed_at_any_step_of_a_save_who_has_it_goes_on(
    tmp_path: Path, after: bool, stop: bool
) -> None:
    step = 0
    while True:
        place = Place(tmp_path / f"{step}")
        fate = Fate(step, after=after)
        place.begin(fate)
        with suppress(Died):
            await place.save(stop=stop)
        if not fate.is_over:
            break
        await place.begin().recover()
        assert place.containers.statuses() == {"web": "running"}, f"recovered from step {step}"
        assert place.content() == {"it": "old"}
        step += 1
    assert step > 5


async def test_where_podman_does_not_answer_it_is_recovered_later(place: Place) -> None:
    place.begin(Fate(4, after=True))
    with pytest.raises(Died):
        await place.save()
    assert place.containers.statuses() == {"web": "paused"}
    again = place.begin()
    place.containers.is_silent = True
    with pytest.raises(CapabilityUnavailable):
        await again.recover()
    place.containers.is_silent = False
    assert "goes on" in await again.recover()
    assert place.containers.statuses() == {"web": "running"}
    assert await again.recover() == ""


async def test_what_is_started_again_and_again_is_never_taken_for_at_rest(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.containers.crash("web")
    seen: list[bool] = []

    def look(one: Path, other: Path) -> None:
        seen.append(place.containers.found["web"].stopped_by_user)
        archive.exchange(one, other)

    monkeypatch.setattr("harmony_pi_topology.volumes.data.exchange", look)
    with suppress(LoadTakenBack):
        await place.load()
    assert seen[0]
    assert not place.containers.found["web"].stopped_by_user
    assert (await place.save(stop=True)).rested == ("web",)
    assert not place.containers.found["web"].stopped_by_user


@pytest.mark.parametrize(
    ("restart", "changed"),
    [
        ("always", {}),  # it has ended, and podman will not: it was booted since
        ("always", {"stopped_by_user": True}),
        ("on-failure", {"exit_code": 0}),
        ("no", {"exit_code": 1}),
    ],
)
async def test_what_has_ended_and_stays_so_is_left_alone(
    place: Place, restart: str, changed: dict[str, Any]
) -> None:
    place.containers.add("idle", "exited")
    place.containers.restart("idle", restart, **changed)
    for act in (place.save, partial(place.save, stop=True), place.load):
        assert (await act()).rested == ("web",)
    assert place.containers.statuses() == {"web": "running", "idle": "exited"}


@pytest.mark.parametrize("name", ["web", "late"])
async def test_what_somebody_starts_while_it_is_read_makes_it_no_archive(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write = VolumeDisk.write_archive

    async def meddle(disk: VolumeDisk, *args: Any) -> ArchivedVolume:
        saved = await write(disk, *args)
        place.containers.add("late")
        await place.containers.start(place.containers.found[name])
        if name != "late":
            del place.containers.found["late"]
        return saved

    monkeypatch.setattr(VolumeDisk, "write_archive", meddle)
    with pytest.raises(VolumeBusy, match=f"while {name} ran"):
        await place.save(stop=True)
    assert place.containers.found["web"].status == "running"
    assert place.records.get(TRANSFER) is None


def dig(place: Path, depth: int) -> None:
    """Make directories within directories: as deep as no path can say."""
    at = os.open(place, os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("as deep", dir_fd=at)
        below = os.open("as deep", os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


async def test_what_is_deeper_than_any_path_is_told_replaced_and_deleted(place: Place) -> None:
    deep = entry("/".join(["d"] * 1100), tarfile.DIRTYPE)
    path = place.root / "deep.tar"
    with tarfile.open(path, "w") as tar:
        tar.addfile(deep)
    dig(place.data, 1100)
    with pytest.raises(ArchiveRefused, match="never loaded again: it has a name of more"):
        await place.save()
    for each in (path, place.archive()):
        await place.load(each)
        assert place.beside() == set()
        assert place.records.get(TRANSFER) is None
    assert place.content() == {"it": "new"}


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("dislikes", [False, True])
async def test_what_cannot_be_deleted_keeps_nobody_waiting(
    place: Place, monkeypatch: pytest.MonkeyPatch, keep: bool, dislikes: bool
) -> None:
    if dislikes:
        place.containers.dislikes = place.has_new
    else:
        (place.data.parent / "harmony-previous").mkdir()

    def refuse(path: Path) -> None:
        if path.exists():
            raise WriteFailed(f"{path} could not be deleted")

    with monkeypatch.context() as patched:
        patched.setattr("harmony_pi_topology.volumes.data.remove", refuse)
        with pytest.raises(LoadTakenBack) if dislikes else nullcontext():
            loaded = await place.load(keep=keep)
            assert not keep or (Path(loaded.previous) / "it").read_text() == "old"
        assert place.records.get(TRANSFER) is None
        assert place.containers.statuses() == {"web": "running"}
        before = place.content()
        with pytest.raises(WriteFailed):
            await place.load(place.archive(it="newer"))
        assert place.content() == before
        assert place.containers.statuses() == {"web": "running"}
    place.containers.dislikes = lambda: False
    await place.load(place.archive(it="newer"))
    assert place.content() == {"it": "newer"}
    assert place.beside() <= {"harmony-previous"}


async def test_what_cannot_be_deleted_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(WriteFailed, match="delete it by hand"):
        await VolumeDisk().remove(tmp_path / "a" / "..")
    await VolumeDisk().remove(tmp_path / "nothing")


async def test_what_comes_and_goes_is_counted_or_not(tmp_path: Path) -> None:
    place = tmp_path / "_data"
    place.mkdir()
    is_over = threading.Event()

    def bustle() -> None:
        while not is_over.is_set():
            for n in range(200):
                (place / f"{n}").write_text("it")
            for n in range(200):
                (place / f"{n}").unlink()

    thread = threading.Thread(target=bustle)
    thread.start()
    try:
        for _ in range(20):
            assert await VolumeDisk().count(place) >= 4096
    finally:
        is_over.set()
        thread.join()


async def test_a_file_that_has_no_name_any_more_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """find(1) has looked at it while it was being deleted."""

    def begin(_: list[str], stdout: int) -> subprocess.Popen[bytes]:
        said = r"d 4096 8 2\nf 7 8 0\nf 7 8 1\n"
        return subprocess.Popen(["printf", said], stdout=stdout, stderr=subprocess.PIPE)

    monkeypatch.setattr(archive, "_begin", begin)
    assert await VolumeDisk().count(tmp_path) == 4096 + 7 + 1024


async def test_a_file_of_many_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(bytes(1 << 20))
    alone = await VolumeDisk().count(tmp_path)
    for n in range(99):
        os.link(tmp_path / "it", tmp_path / f"{n}")
    assert await VolumeDisk().count(tmp_path) - alone <= 99 * 1024
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(1 << 40)
    assert await VolumeDisk().count(tmp_path) < 2 << 20


async def test_what_could_not_be_loaded_again_is_never_called_saved(place: Place) -> None:
    with (place.data / "holes").open("wb") as file:
        for n in range(4):
            file.seek(n << 20)
            file.write(b"it")
    await place.save()
    with pytest.MonkeyPatch.context() as patched:
        # As it is with a map of ever so many holes.
        patched.setattr(archive, "_HEADER_MOST_BYTES", 600)
        with pytest.raises(
            ArchiveRefused, match="never loaded again: an entry of it says too much"
        ):
            await place.save()
    assert place.containers.statuses() == {"web": "running"}
    await place.load(place.root / "saved.tar")


async def begin_and_lose(place: Place, op: str) -> None:
    """podman goes silent once the directories are exchanged, or who has it is paused."""
    holders = place.containers

    async def go_silent(found: FoundContainer) -> None:
        holders.is_silent = True
        raise CapabilityUnavailable("podman does not answer")

    holders.start = go_silent  # type: ignore[method-assign]
    with pytest.raises(CapabilityUnavailable):
        await (place.load(keep=True) if op == "load" else place.save())
    del holders.start
    assert place.records.get(TRANSFER) is not None


@pytest.mark.parametrize("first", ["load", "save"])
@pytest.mark.parametrize("second", ["load", "save"])
async def test_what_comes_next_finishes_what_was_not_and_deletes_nothing_of_it(
    place: Place, first: str, second: str
) -> None:
    place.containers.add("other", "exited")
    await begin_and_lose(place, first)
    before = place.records.get(TRANSFER)
    again = partial(place.load, place.archive(it="newer"), keep=True)
    with pytest.raises(VolumeBusy, match="earlier"):
        await (again() if second == "load" else place.save())
    assert place.records.get(TRANSFER) == before
    place.containers.is_silent = False
    await (again() if second == "load" else place.save())
    assert place.containers.statuses() == {"web": "running", "other": "exited"}
    known = {path.read_text() for path in place.data.parent.glob("*/it")}
    # Of two loads that each keep one, what the first has put there is what the second keeps.
    expected = {
        ("load", "load"): {"new", "newer"},
        ("load", "save"): {"old", "new"},
        ("save", "load"): {"old", "newer"},
        ("save", "save"): {"old"},
    }
    assert known == expected[first, second]
    assert place.records.get(TRANSFER) is None


async def test_whoever_is_to_recover_hears_that_it_is_busy(place: Place) -> None:
    waits = asyncio.Event()

    async def settle() -> None:
        await waits.wait()

    task = asyncio.create_task(
        place.volumes.load("data", place.archive(), keep_previous=False, settle=settle)
    )
    while place.records.get(TRANSFER) is None:
        await asyncio.sleep(0)
    with pytest.raises(VolumeBusy):
        await place.volumes.recover()
    waits.set()
    await task
    assert await place.volumes.recover() == ""


async def test_one_that_is_given_up_lets_everybody_go_on(place: Place) -> None:
    with (place.data / "large").open("wb") as file:
        file.write(os.urandom(1 << 20) * 64)
    task = asyncio.create_task(place.save())
    while place.containers.statuses() != {"web": "paused"}:
        await asyncio.sleep(0)
    with pytest.raises(VolumeBusy, match="another"):
        await place.load()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert place.containers.statuses() == {"web": "running"}


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for field, value in fields.items():
        setattr(made, field, value)
    return made


HOSTILE = {
    "absolute": [entry("/etc/cron.d/x")],
    "upward": [entry("a/../../x")],
    "block device": [entry("sda", tarfile.BLKTYPE, devmajor=8)],
    "character device": [entry("mem", tarfile.CHRTYPE, devmajor=1, devminor=1)],
    "hard link upward": [entry("x", tarfile.LNKTYPE, linkname="../../it")],
    "hard link to the root": [entry("x", tarfile.LNKTYPE, linkname="/etc/shadow")],
    "unknown type": [entry("x", b"Z")],
    "through a link": [entry("a", tarfile.SYMTYPE, linkname="../../.."), entry("a/x")],
    "through an absolute link": [entry("a", tarfile.SYMTYPE, linkname="/tmp"), entry("a/x")],
    "over a link": [
        entry("a", tarfile.SYMTYPE, linkname="../../out"),
        entry("b", tarfile.LNKTYPE, linkname="a"),
        entry("b/x"),
    ],
    "a name without end": [entry("x" * 2_000_000)],
    "a long name": [entry("/".join(["x" * 200] * 30))],
    "headers without end": [entry("x", pax_headers={"comment": "x" * 3_000_000})],
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_no_volume_may_have_is_refused_before_anything_is_touched(
    place: Place, name: str
) -> None:
    path = place.root / "hostile.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for each in HOSTILE[name]:
            tar.addfile(each)
    outside = {str(each) for each in place.root.rglob("*")}
    with pytest.raises(ArchiveRefused):
        await place.load(path)
    assert {str(each) for each in place.root.rglob("*")} == outside
    assert not Path("/tmp/x").exists()
    assert place.content() == {"it": "old"}
    assert place.containers.said == []


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 10240, b"no archive" * 1000, b"\x1f\x8b\x08" + b"z" * 600],
)
async def test_what_is_no_archive_is_refused(place: Place, data: bytes) -> None:
    path = place.root / "broken.tar"
    path.write_bytes(data)
    with pytest.raises(ArchiveRefused):
        await place.load(path)
    assert place.content() == {"it": "old"}
    assert place.containers.said == []


@pytest.mark.parametrize("kept", [300, 512, 1100, 1536])
async def test_an_archive_that_is_cut_off_is_refused(place: Place, kept: int) -> None:
    path = place.archive(one="1" * 700, two="2" * 700)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ArchiveRefused):
        await place.load(path)
    assert place.content() == {"it": "old"}
    assert place.containers.said == []

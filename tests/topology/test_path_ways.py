"""Seeking ways while somebody changes them under our feet, at the worst moment."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from harmony_pi_topology.common.inotify import AWAITED, Attention, Directories
from harmony_pi_topology.common.watch_tree import WatchTree, build_watch_tree

KEY, PATH = "motd", "/etc/app/motd"


class Disturbed(Directories):
    """Somebody does something just before a directory is watched: once, when ``when`` says so."""

    def __init__(self) -> None:
        super().__init__()
        self.when: Callable[[str, Attention], bool] = lambda directory, events: False
        self.deed: Callable[[], object] = lambda: None

    def watch(self, directory: int, events: Attention, *, only: bool = False) -> int:
        if self.when(Path(f"/proc/self/fd/{directory}").readlink().name, events):
            self.when = lambda directory, events: False
            self.deed()
        return super().watch(directory, events, only=only)


@pytest.fixture
def directories() -> Generator[Disturbed]:
    directories = Disturbed()
    yield directories
    directories.close()


def sought_beneath(root: Path, directories: Directories) -> WatchTree:
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        return build_watch_tree(descriptor, directories, {KEY: (PATH,)})
    finally:
        os.close(descriptor)


def heard(directories: Directories, ways: WatchTree) -> list[str]:
    return [key for event in directories.events() for key in ways.keys_for(event)[0]]


def test_a_directory_that_is_replaced_just_before_it_is_watched(
    tmp_path: Path, directories: Disturbed
) -> None:
    app = tmp_path / "etc/app"
    app.mkdir(parents=True)

    def replace() -> None:
        app.rename(tmp_path / "old")
        app.mkdir()

    directories.when = lambda directory, _: directory == "app"
    directories.deed = replace
    ways = sought_beneath(tmp_path, directories)
    assert heard(directories, ways) == []
    (app / "motd").touch()
    assert KEY in heard(directories, ways)


def test_a_directory_that_is_moved_away_just_before_it_is_watched(
    tmp_path: Path, directories: Disturbed
) -> None:
    app = tmp_path / "etc/app"
    app.mkdir(parents=True)
    directories.when = lambda directory, _: directory == "app"
    directories.deed = lambda: app.rename(tmp_path / "old")
    ways = sought_beneath(tmp_path, directories)
    list(directories.events())
    (tmp_path / "old").rename(app)
    assert KEY in heard(directories, ways)


def test_a_directory_that_comes_just_before_its_coming_is_watched_for(
    tmp_path: Path, directories: Disturbed
) -> None:
    app = tmp_path / "etc/app"
    app.parent.mkdir()
    directories.when = lambda directory, events: directory == "etc" and events == AWAITED
    directories.deed = app.mkdir
    ways = sought_beneath(tmp_path, directories)
    (app / "motd").touch()
    assert KEY in heard(directories, ways)


def test_a_directory_above_that_is_moved_away_while_the_next_is_sought(
    tmp_path: Path, directories: Disturbed
) -> None:
    app = tmp_path / "etc/app"
    app.mkdir(parents=True)
    directories.when = lambda directory, _: directory == "app"
    directories.deed = lambda: app.parent.rename(tmp_path / "old")
    ways = sought_beneath(tmp_path, directories)
    assert KEY in heard(directories, ways)


def test_a_directory_that_is_replaced_for_ever_is_given_up_and_awaited(
    tmp_path: Path, directories: Disturbed
) -> None:
    app = tmp_path / "etc/app"
    app.mkdir(parents=True)
    count = 0

    def again(directory: str, _: Attention) -> bool:
        nonlocal count
        if directory == "app":
            count += 1
            app.rename(tmp_path / f"old-{count}")
            app.mkdir()
        return False

    directories.when = again
    ways = sought_beneath(tmp_path, directories)
    assert 1 < count < 100
    list(directories.events())
    app.rename(tmp_path / "last")
    assert KEY in heard(directories, ways)

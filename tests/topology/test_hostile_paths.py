"""Files beneath a root, with somebody hostile about: in the paths, on the way, and at the same time.

Both ways of resolving are put to the same cases. Beside each root lies a folder that nothing may reach;
that it is as it was, to the nanosecond, is asserted at the end of every test.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmony_core.errors import CapabilityError, UnsafePath, WriteFailed
from harmony_pi_topology.posix.beneath import Opener
from harmony_pi_topology.posix.root import Found, Root
from tests.core.test_paths import HOSTILE
from tests.soak import runs
from tests.topology.place import (
    DEEDS,
    OLD,
    ON_FILES,
    RESOLVERS,
    SECRET,
    Deed,
    Place,
    opener_named,
    place_in,
    snapshot,
)

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make devices")

every_deed = pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS.keys())
every_deed_on_files = pytest.mark.parametrize("deed", ON_FILES.values(), ids=ON_FILES.keys())


@pytest.fixture(params=RESOLVERS)
def resolver(request: pytest.FixtureRequest) -> Opener:
    return opener_named(str(request.param))


@pytest.fixture
def place(tmp_path: Path, resolver: Opener) -> Iterator[Place]:
    with place_in(tmp_path, resolver) as place:
        yield place


# In the path.


@every_deed
def test_hostile_paths_are_refused_before_anything_is_touched(place: Place, deed: Deed) -> None:
    before = snapshot(place.here)
    for path, _ in HOSTILE.values():
        with pytest.raises(UnsafePath):
            deed(place.root, path)
    assert snapshot(place.here) == before


def test_looking_at_many_answers_for_each_hostile_path_alone(place: Place) -> None:
    place.put("/etc/motd")
    hostile = [path for path, _ in HOSTILE.values()]
    answers = place.root.look_many(["/etc/motd", *hostile, "/etc/motd", "/etc/.."])
    assert isinstance(answers[0], Found)
    assert isinstance(answers[-2], Found)
    assert all(isinstance(each, UnsafePath) for each in (*answers[1:-2], answers[-1]))


def test_looking_at_many_behind_a_link_gives_each_an_error_of_its_own(place: Place) -> None:
    place.at("/link").symlink_to(place.outside)
    first, second = place.root.look_many(["/link/secret", "/link/inner"])
    assert isinstance(first, UnsafePath)
    assert isinstance(second, UnsafePath)
    assert "/link/secret" in first.message
    assert "/link/inner" in second.message


def test_identities_of_many_are_those_of_each_and_an_error_is_its_paths_own(place: Place) -> None:
    place.put("/etc/motd")
    place.at("/etc/other").hardlink_to(place.at("/etc/motd"))
    place.at("/link").symlink_to(place.outside)
    hostile = [path for path, _ in HOSTILE.values()]
    safe = [
        "/etc/motd",
        "/etc/other",
        "/etc/missing",
        "/no/such/place",
        "/etc/motd/beneath",
        "/top",
    ]
    answers = place.root.identities_many([*safe, *hostile, "/link/secret", "/link/inner"])
    assert answers[: len(safe) - 2] == [place.root.identities(each) for each in safe[:-2]]
    assert answers[5] == place.root.identities("/top")
    assert isinstance(answers[0], frozenset)
    assert isinstance(answers[1], frozenset)
    assert len(answers[0] & answers[1]) == 1, "one inode, and two names"
    assert all(isinstance(each, UnsafePath) for each in answers[len(safe) :])
    assert "/link/inner" in str(answers[-1])


# On the way.

LINKED: dict[str, tuple[str, Callable[[Place], Path | str]]] = {
    "to a directory outside": ("/link", lambda place: place.outside),
    "to a directory outside, relatively": ("/link", lambda _: "../outside"),
    "further down": ("/etc/link", lambda place: place.outside / "inner"),
    "to a directory inside": ("/link", lambda place: place.at("/etc")),
    "to a directory inside, relatively": ("/link", lambda _: "etc"),
    "to the root": ("/link", lambda place: place.here),
    "to itself": ("/link", lambda _: "link"),
    "to nothing": ("/link", lambda place: place.outside / "nothing"),
    "to a process's root": ("/link", lambda _: "/proc/self/root"),
}
linked = pytest.mark.parametrize(("link", "target"), LINKED.values(), ids=LINKED.keys())


@linked
def test_no_link_is_followed_on_the_way(
    place: Place, link: str, target: Callable[[Place], Path | str]
) -> None:
    place.put("/etc/secret")
    place.at(link).symlink_to(target(place))
    for deed in DEEDS.values():
        with pytest.raises(UnsafePath, match=r"link is on the way|or a link, is on the way"):
            deed(place.root, f"{link}/secret")
    assert place.at("/etc/secret").read_bytes() == OLD


@linked
def test_no_link_is_followed_at_the_end(
    place: Place, link: str, target: Callable[[Place], Path | str]
) -> None:
    place.put("/etc/secret")
    place.at(link).symlink_to(target(place))
    for deed in ON_FILES.values():
        with pytest.raises(UnsafePath, match="is a symbolic link, not a file"):
            deed(place.root, link)
    found = place.root.look(link)
    assert found is not None
    assert found.kind == "symlink"


@every_deed
def test_magic_links_of_proc_are_not_followed(deed: Deed, resolver: Opener, tmp_path: Path) -> None:
    with Root("/", opener=resolver) as root:
        for link in ("root", "cwd", "fd/0"):
            with pytest.raises(UnsafePath):
                deed(root, f"/proc/{os.getpid()}/{link}{tmp_path}/x")


@every_deed
def test_a_file_on_the_way_is_refused(place: Place, deed: Deed) -> None:
    place.put("/etc")
    with pytest.raises(UnsafePath, match="not a directory"):
        deed(place.root, "/etc/motd")


def test_where_real_devices_have_links_the_message_names_the_real_path(place: Place) -> None:
    place.at("/run").mkdir()
    place.at("/var").mkdir()
    place.at("/var/run").symlink_to("/run")
    with pytest.raises(UnsafePath, match="/var/run is /run"):
        place.write("/var/run/x.conf")


# At the end.


def a_directory(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    directory = os.open(path.parent, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")  # a socket's own path must be short
    os.close(directory)


def a_device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


@every_deed_on_files
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (a_directory, "directory"),
        (a_pipe, "device, pipe or socket"),
        (a_socket, "device, pipe or socket"),
        pytest.param(a_device, "device, pipe or socket", marks=AS_ROOT),
    ],
)
def test_what_is_not_a_file_is_refused_by_what_it_is_and_left(
    place: Place, deed: Deed, make: Callable[[Path], None], kind: str
) -> None:
    make(place.at("/target"))
    before = snapshot(place.here)
    with pytest.raises(UnsafePath, match=f"/target is a {kind}, not a file"):
        deed(place.root, "/target")
    assert snapshot(place.here) == before


def test_a_hard_link_s_other_name_keeps_its_content(place: Place) -> None:
    other = place.put("/other")
    os.link(other, place.at("/target"))
    found = place.write("/target")
    assert found.inode != other.stat().st_ino
    assert other.read_bytes() == OLD


# Anything at all.

_NAMES = st.sampled_from(
    ["a", "b", "etc", "link", "leaf", "up", "pipe", ".", "..", "", "...", "\uff0e\uff0e", "e\u0301"]
) | st.text(max_size=4)
_PATHS = st.lists(_NAMES, min_size=1, max_size=5).map(lambda names: "/" + "/".join(names))
_STEPS = st.lists(st.tuples(st.sampled_from(list(DEEDS)), _PATHS), max_size=4)


@pytest.mark.soak
@pytest.mark.parametrize("name", RESOLVERS)
def test_whatever_the_path_nothing_else_is_touched(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    opener = opener_named(name)

    @settings(max_examples=runs(1_000), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(_STEPS)
    def touch(steps: list[tuple[str, str]]) -> None:
        with place_in(tmp_path_factory.mktemp("any"), opener) as place:
            place.put("/etc/a")
            place.at("/link").symlink_to(place.outside)
            place.at("/leaf").symlink_to(place.outside / "secret")
            place.at("/up").symlink_to("..")
            os.mkfifo(place.at("/pipe"))
            for deed, path in steps:
                assert_nothing_else_is_touched(place, deed, path)

    touch()


def assert_nothing_else_is_touched(place: Place, deed: str, path: str) -> None:
    before = snapshot(place.here)
    try:
        DEEDS[deed](place.root, path)
    except (CapabilityError, FileNotFoundError):
        assert snapshot(place.here) == before
        return
    after = snapshot(place.here)
    touched = {each for each in before | after if before.get(each) != after.get(each)}
    mine = place.at(path)
    above = mine.parents if deed == "make parents" else [mine.parent]
    assert touched <= {str(mine), *map(str, above)}


# Somebody at work at the same time.

_BOTH_WITHIN_S = 40.0

FLIP_A_DIRECTORY = """
import ctypes, sys
libc = ctypes.CDLL(None)
here, exchange = sys.argv[1].encode(), 2
while True:
    libc.renameat2(-100, here + b"/target", -100, here + b"/link", exchange)
"""
FLIP_A_FILE = """
import os, sys
here, outside = sys.argv[1:]
os.chdir(here)
while True:
    os.symlink(outside + "/secret", "aside")
    os.rename("aside", "target")
    with open("aside", "wb") as file:
        file.write(b"old\\n")
    os.rename("aside", "target")
"""


@contextmanager
def flipping(script: str, place: Place) -> Generator[None]:
    """Somebody swaps things for links, over and over, from another process."""
    flipper = subprocess.Popen(
        [sys.executable, "-S", "-c", script, str(place.here), str(place.outside)]
    )
    try:
        yield
        assert flipper.poll() is None
    finally:
        flipper.kill()
        flipper.wait()


def is_let(place: Place, deed: Deed, path: str) -> bool:
    """Whether *deed* was done, and not refused. What it tells is of inside."""
    try:
        told = deed(place.root, path)
    except (UnsafePath, FileNotFoundError):
        return False
    except WriteFailed as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOENT:
            return False  # it was there a moment ago
        raise
    assert told != SECRET
    assert told != hashlib.sha256(SECRET).hexdigest()
    return True


def assert_never_led_outside(place: Place, path: str, deeds: Mapping[str, Deed]) -> None:
    """Each of *deeds* in turn, in the stated number, and until each was both let and refused."""
    left = runs(10_000)
    missing = {(name, answer) for name in deeds for answer in ("let", "refused")}
    give_up_at = time.monotonic() + _BOTH_WITHIN_S
    while left > 0 or missing:
        assert left > 0 or time.monotonic() < give_up_at, f"never so: {sorted(missing)}"
        for name, deed in deeds.items():
            missing.discard((name, "let" if is_let(place, deed, path) else "refused"))
            left -= 1


@pytest.mark.soak
def test_a_directory_that_is_swapped_for_a_link_all_the_time_leads_nowhere(place: Place) -> None:
    place.put("/target/inner/secret")
    place.at("/link").symlink_to(place.outside)
    with flipping(FLIP_A_DIRECTORY, place):
        assert_never_led_outside(place, "/target/inner/secret", DEEDS)


@pytest.mark.soak
def test_a_directory_is_never_made_where_a_link_leads(place: Place) -> None:
    def make_and_remove(root: Root, path: str) -> object:
        try:
            return root.make_parents(path)
        finally:
            for made in ("/target/a", "/link/a"):
                try:
                    root.remove_empty([f"{made}/b", made])
                except UnsafePath:
                    continue

    place.at("/target").mkdir()
    place.at("/link").symlink_to(place.outside)
    with flipping(FLIP_A_DIRECTORY, place):
        assert_never_led_outside(place, "/target/a/b/x", {"make parents": make_and_remove})


@pytest.mark.soak
def test_a_file_that_is_swapped_for_a_link_all_the_time_leads_nowhere(place: Place) -> None:
    place.put("/target")
    # Without removal, which would be refused only in the instant between looking and unlinking.
    deeds = {name: deed for name, deed in ON_FILES.items() if name != "remove"}
    with flipping(FLIP_A_FILE, place):
        assert_never_led_outside(place, "/target", deeds)

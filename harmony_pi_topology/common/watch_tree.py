"""The ways to directories, each step of them watched: sought in a thread, and then what events mean.

Each step is watched before the next is looked for, and looked at once more after it is watched; so
whatever is renamed in between is told. No link is ever followed, and nothing outside the root is watched.

A directory is known by its path, the root by the empty one; a watch by its number.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress

import attrs

from harmony_core.errors import CapabilityError, CapabilityUnavailable, UnsafePath
from harmony_core.paths import check_path
from harmony_pi_topology.posix.beneath import give_back, open_beneath

from .inotify import AWAITED, HELD, PASSED, Attention, Directories, Event
from .path_calls import step

__all__ = ["WatchTree", "build_watch_tree", "unwatchable"]

_TRIES = 20
"""How often a directory is looked for that somebody replaces again and again."""
_NOT_THERE = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.EACCES, errno.EPERM}
)


@attrs.frozen
class _Way:
    """The way to a directory, as far as it goes."""

    watches: tuple[int, ...]
    missing: str = ""
    """The first part that is not there, or is no directory; empty when all are."""


@attrs.frozen
class WatchTree:
    """What was known of all ways at one moment."""

    by_directory: Mapping[str, _Way]
    names: Mapping[str, Mapping[str, Collection[str]]]
    """Of each directory, the keys that a name in it is about; under the empty name, those of any name."""
    through: Mapping[int, Collection[str]]
    """Of each watch, the directories whose ways lead there."""
    ending: Mapping[int, Collection[str]]
    """Of each watch, those whose ways end there."""
    failure: CapabilityError | None = None
    """Why some ways are not watched to their end."""

    def keys_below(self, directory: str) -> Iterator[str]:
        for keys in self.names[directory].values():
            yield from keys

    def keys_elsewhere(self, before: WatchTree | None) -> Iterator[str]:
        """Return the keys whose way was another *before*."""
        if before is None:
            return
        for directory in self.names:
            way = self.by_directory[directory]
            if before.by_directory.get(directory, way) != way:
                yield from self.keys_below(directory)

    def keys_for(self, event: Event) -> tuple[list[str], bool]:
        """Return the keys to which *event* is reported, and whether their ways must be found again."""
        if event.watch is None:
            return [], True
        if not event.name:
            below = [self.keys_below(each) for each in self.through.get(event.watch, ())]
            return [key for keys in below for key in keys], bool(below)
        heard: list[str] = []
        is_way = False
        for directory in self.ending.get(event.watch, ()):
            missing = self.by_directory[directory].missing
            if not missing:
                names = self.names[directory]
                heard += names.get(event.name, ())
                heard += names.get("", ())
            elif missing == event.name:
                heard += self.keys_below(directory)
                is_way = True
        return heard, is_way


def build_watch_tree(
    root: int, directories: Directories, subjects: Mapping[str, Collection[str]]
) -> WatchTree:
    """Watch all ways below the directory that is open as *root*, and no others.

    *subjects* are the paths that belong to each key; one that ends with a slash stands for everything
    directly in that directory.
    """
    return _Search(root, directories, _names_by_directory(subjects)).ways()


def unwatchable(error: OSError) -> CapabilityError:
    """Return *error* as one of our errors, with its remedy."""
    match error.errno:
        case errno.ENOSPC | errno.ENOMEM:
            remedy = "raise fs.inotify.max_user_watches"
        case errno.EMFILE:
            remedy = "raise fs.inotify.max_user_instances"
        case _:
            remedy = "look at the kernel's log"
    return CapabilityUnavailable(
        f"not every file can be watched for changes: {error.strerror}; {remedy}. "
        "Until then changes are found later"
    )


class _Search:
    """One search for all ways. The root is called ""."""

    def __init__(
        self,
        root: int,
        directories: Directories,
        names: Mapping[str, Mapping[str, Collection[str]]],
    ) -> None:
        self._root = root
        self._directories = directories
        self._names = names
        self._found: dict[str, _Way] = {}
        self._stands: dict[int, str] = {}
        """Where each watch was found to stand."""
        self._needed: dict[int, Attention] = {}
        """What of each must be told."""
        self._failure: CapabilityError | None = None

    def ways(self) -> WatchTree:
        through: defaultdict[int, list[str]] = defaultdict(list)
        ending: defaultdict[int, list[str]] = defaultdict(list)
        for directory in self._names:
            watches = self._way(directory).watches
            for watch in watches:
                through[watch].append(directory)
            if watches:
                ending[watches[-1]].append(directory)
        self._need_no_more()
        self._directories.keep_only(through.keys())
        return WatchTree(self._found, self._names, through, ending, self._failure)

    def _way(self, directory: str) -> _Way:
        if directory not in self._found:
            self._found[directory] = self._enter(directory)
        return self._found[directory]

    def _enter(self, directory: str) -> _Way:
        parent, _, name = directory.rpartition("/")
        above = self._way(parent) if directory else _Way(())
        if above.missing:
            return above
        watch = self._watch_directory(directory, self._attention(directory))
        if watch is None and directory:
            # It may have come before its coming was watched for: so look once more.
            self._watch_directory(parent, AWAITED)
            watch = self._watch_directory(directory, self._attention(directory))
        if watch is None:
            return _Way(above.watches, name or "/")
        return _Way((*above.watches, watch))

    def _attention(self, directory: str) -> Attention:
        return HELD if directory in self._names else PASSED

    def _watch_directory(self, directory: str, events: Attention) -> int | None:
        """Return the number of its watch; None where there is no such directory."""
        try:
            for _ in range(_TRIES):
                with self._open(directory) as here:
                    watch = self._directories.watch(here, events)
                    # Whether what is watched still stands there: from now on it tells when not.
                    with self._open(directory) as again:
                        if os.path.samestat(os.fstat(here), os.fstat(again)):
                            self._stands[watch] = directory
                            self._needed[watch] = self._needed.get(watch, events) | events
                            return watch
        except OSError as error:
            if error.errno not in _NOT_THERE:
                self._failure = unwatchable(error)
        return None

    def _need_no_more(self) -> None:
        """Stop watching what was needed for other ways than these."""
        for watch, directory in self._stands.items():
            if self._directories.attention[watch] != self._needed[watch]:
                with suppress(OSError), self._open(directory) as here:
                    self._directories.watch(here, self._needed[watch], only=True)

    @contextmanager
    def _open(self, directory: str) -> Generator[int]:
        step(directory or "/")
        descriptor = open_beneath(self._root, directory[1:] or ".", os.O_PATH | os.O_DIRECTORY)
        try:
            step(directory or "/")  # nothing is watched by one who was given up meanwhile
            yield descriptor
        finally:
            give_back(descriptor)


def _names_by_directory(
    subjects: Mapping[str, Collection[str]],
) -> dict[str, dict[str, Collection[str]]]:
    names: dict[str, dict[str, Collection[str]]] = {}
    for key, paths in subjects.items():
        for path in paths:
            with suppress(UnsafePath):  # nothing will ever be there
                check_path(path.removesuffix("/"))
                directory, _, name = path.rpartition("/")
                inside = names.setdefault(directory, {})
                inside[name] = (*inside.get(name, ()), key)
    return names

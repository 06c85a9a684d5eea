"""Directories of this machine that are to be on devices, with all that is in them.

    directory -> what is in it, without what is excluded -> all that cannot be pushed, told by name
              -> small files and what has references: into the manifest, as far as there is room
              -> all others: assets
              -> looked at again: `ScoreFileError` for what was changed meanwhile

A link is a link on the device, too, and leads to something else in the tree.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import attrs
from pydantic import ValidationError

from harmony_core.errors import ScoreFileError, UnsafePath
from harmony_core.paths import check_path
from harmony_core.references import has_references
from harmony_core.resources import first_problem
from harmony_core.trees import TreeEntry, find_directories
from harmony_core.visible import word
from harmony_core.wire import strict_json

from .local import open_regular, read_asset

__all__ = [
    "EXCLUDED",
    "TREE_ENTRIES_MOST",
    "TREE_INLINE_MOST_BYTES",
    "TREE_MOST_BYTES",
    "read_tree",
]

TREE_ENTRIES_MOST = 500
"""Files, directories and links of one tree: as assets, with names of common length, they take 150 of the 256
KiB that a manifest has."""
TREE_INLINE_MOST_BYTES = 64 * 1024
"""All contents of a tree that stand in the manifest. What is beyond that is an asset."""
TREE_MOST_BYTES = 64 * 1024 * 1024
"""All contents of a tree."""
EXCLUDED = (
    ".git",
    ".hg",
    ".svn",
    ".DS_Store",
    "__pycache__",
    "*~",
    "*.swp",
    "*.swo",
    ".#*",
    "#*#",
)
"""What is never pushed along: what version control, editors and Python leave in a directory."""
_TOLD_MOST = 10
_EMPTY_BYTES = 2
"""Of a text without a character. No asset is empty."""


@attrs.frozen
class _Found:
    """One thing in a tree, as it is before it is read. Is another once it was changed."""

    mode: int
    size_bytes: int
    inode: int
    modified_ns: int
    target: str = ""

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


@attrs.frozen
class _Content:
    """What a file has in it, as it would stand in a manifest."""

    field: str
    value: str = attrs.field(repr=False)
    size_bytes: int
    refers: bool

    @property
    def must_be_inline(self) -> bool:
        return self.refers and self.field == "content"


def read_tree(directory: Path | str, exclude: Sequence[str] = ()) -> dict[str, TreeEntry]:
    """Return what is in *directory*, for a field of a Score such as `TreeScore.files`.

    Without `EXCLUDED`, and without what one of the patterns *exclude* matches: by its name, or by its path
    from *directory* on where the pattern has a slash, as in ``./key``. What is to be an asset is read again
    when the Score is pushed: until then, in this process, it must stay as it is.

    `ScoreFileError` tells by name what cannot be read, what is no file, directory or link, or has a name that
    no device takes; links that lead out of the tree; what is too much; and what was to be excluded and is not
    there, unless that is a pattern of names, such as ``*.bak``.
    """
    top = Path(directory)
    found = _look_into(top, exclude)
    _refuse(_find_faults(top, found))
    entries = _read_entries(top, found)
    again = _look_into(top, exclude)
    _refuse(
        f"{_show(top, path)} was changed while it was read; push again once it is whole"
        for path in sorted(found.keys() | again.keys())
        if found.get(path) != again.get(path)
    )
    return entries


def _look_into(top: Path, exclude: Sequence[str]) -> dict[str, _Found]:
    """Return all that is in *top* and is not excluded, by its path from there on."""
    found: dict[str, _Found] = {}
    unmatched = {each for each in exclude if _names_one_thing(each)} - {*EXCLUDED}
    faults: list[str] = []
    left = [""]
    while left:
        inside = left.pop()
        try:
            names = sorted(each.name for each in (top / inside).iterdir())
        except OSError as error:
            faults.append(_make_unreadable(top, inside, error))
            continue
        for name in names:
            path = f"{inside}/{name}" if inside else name
            if matching := [each for each in (*EXCLUDED, *exclude) if _matches(path, each)]:
                unmatched.difference_update(matching)
                continue
            if len(found) == TREE_ENTRIES_MOST:
                raise ScoreFileError(
                    f"{_show(top)} has more than {TREE_ENTRIES_MOST} files, directories and links in it "
                    f"({_show(top, path)} is one too many); exclude what no device needs, make several "
                    "trees of it, or put it into an image"
                )
            try:
                found[path] = _look_at(top / path)
            except OSError as error:
                faults.append(_make_unreadable(top, path, error))
                continue
            if found[path].is_directory:
                left.append(path)
    _refuse(faults)
    _refuse(
        f"exclude: {word(each)} is nothing in {_show(top)}, or in what is left out by another pattern; write "
        "its path from there on, as in conf.d/key, or its name alone, or remove it"
        for each in sorted(unmatched)
    )
    if not found:
        raise ScoreFileError(
            f"{_show(top)} has nothing in it that is pushed; for a directory alone, write a DirectoryScore"
        )
    return found


def _look_at(path: Path) -> _Found:
    there = path.lstat()
    target = str(path.readlink()) if stat.S_ISLNK(there.st_mode) else ""
    # What a directory has in it is compared by itself.
    modified_ns = 0 if stat.S_ISDIR(there.st_mode) else there.st_mtime_ns
    return _Found(there.st_mode, there.st_size, there.st_ino, modified_ns, target)


def _matches(path: str, pattern: str) -> bool:
    """Return whether *pattern* is of *path*, where it has a slash, or else of the name of what is there."""
    pattern = pattern.rstrip("/")
    if "/" in pattern:
        return fnmatchcase(path, pattern.removeprefix("./").lstrip("/"))
    return fnmatchcase(path.rpartition("/")[2], pattern)


def _names_one_thing(pattern: str) -> bool:
    """Return whether *pattern* is of something that is there; others tell of all that may come to be."""
    return "/" in pattern.rstrip("/") or not any(each in pattern for each in "*?[")


def _find_faults(top: Path, found: Mapping[str, _Found]) -> Iterator[str]:
    """Yield what cannot be pushed of what was *found*, before any of it is read."""
    for path, each in found.items():
        if (problem := _find_problem_of_name(path)) is not None:
            yield f"{_show(top, path)}: {problem}"
        elif each.is_link and not _leads_inside(top, path, found):
            yield (
                f"{_show(top, path)} leads to {word(each.target)}, which is not in the tree; have that in "
                "there, too, or exclude the link and write a LinkScore"
            )
        elif not (each.is_file or each.is_directory or each.is_link):
            yield (
                f"{_show(top, path)} is no file, directory or link; take it out of there, or exclude it"
            )
    files = [(each.size_bytes, path) for path, each in found.items() if each.is_file]
    if sum(size_bytes for size_bytes, _ in files) > TREE_MOST_BYTES:
        largest = ", ".join(_show(top, path) for _, path in sorted(files, reverse=True)[:3])
        yield (
            f"{_show(top)} is more than {TREE_MOST_BYTES // 1024**2} MiB, most of it {largest}; exclude what "
            "no device needs, or put it into an image"
        )


def _find_problem_of_name(path: str) -> str | None:
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    try:
        check_path(f"/{path}")
    except UnsafePath as error:
        return error.message.removeprefix(f"{f'/{path}'!a}: ")
    return None


def _leads_inside(top: Path, path: str, found: Mapping[str, _Found]) -> bool:
    """Return whether the link at *path* leads to something in the tree, wherever the tree is."""
    target = found[path].target
    depth = path.count("/")
    for part in target.split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
        if depth < 0:
            return False
    try:
        there = os.path.realpath(top / path, strict=True)
    except OSError:
        return False
    inside = os.path.relpath(there, os.path.realpath(top))
    return not target.startswith("/") and (inside == "." or inside in found)


def _read_entries(top: Path, found: Mapping[str, _Found]) -> dict[str, TreeEntry]:
    contents: dict[str, _Content] = {}
    faults: list[str] = []
    for path, each in found.items():
        try:
            if each.is_file:
                contents[path] = _read_content(top / path)
        except ScoreFileError as error:
            faults.append(word(error.message))
    inline = _choose_inline(contents)
    faults += (
        f"{_show(top, path)} has ${{…}} in it, and stands in the manifest, which of this tree holds "
        f"{TREE_INLINE_MOST_BYTES // 1024} KiB at most; if it is to go as it is, exclude it, and write a "
        "FileScore with asset_from"
        for path, each in contents.items()
        if each.must_be_inline and path not in inline
    )
    _refuse(faults)
    with_something_in_it = find_directories(found)
    entries: dict[str, TreeEntry] = {}
    for path in sorted(found.keys() - with_something_in_it):
        fields = _make_fields(
            top / path, found[path], contents.get(path) if path in inline else None
        )
        try:
            entries[path] = TreeEntry.model_validate(fields)
        except ValidationError as error:
            faults.append(f"{_show(top, path)}: {first_problem(error)}")
    _refuse(faults)
    return entries


def _read_content(path: Path) -> _Content:
    with open_regular(path) as file:
        data = file.read(TREE_MOST_BYTES + 1)
    try:
        field, value = "content", data.decode()
    except UnicodeDecodeError:
        field, value = "content_base64", ""
    if not value or "\0" in value:  # which no manifest has as text
        field = "content_base64" if data else "content"
        refers = has_references(data.decode("latin-1"))
        value = base64.b64encode(data).decode()
    else:
        refers = has_references(value)
    size_bytes = len(strict_json.dumps(value))
    is_kept = size_bytes <= TREE_INLINE_MOST_BYTES
    return _Content(field, value if is_kept else "", size_bytes, refers)


def _choose_inline(contents: Mapping[str, _Content]) -> set[str]:
    """Return the paths of what stands in the manifest: what has to, and then the smallest."""
    chosen: set[str] = set()
    room_bytes = TREE_INLINE_MOST_BYTES
    for path, each in sorted(
        contents.items(), key=lambda item: (not item[1].must_be_inline, item[1].size_bytes, item[0])
    ):
        if each.refers and not each.must_be_inline:
            continue  # in bytes a reference stands for itself, and so it does in an asset
        if each.size_bytes <= max(room_bytes, _EMPTY_BYTES):
            room_bytes -= each.size_bytes
            chosen.add(path)
    return chosen


def _make_fields(path: Path, found: _Found, inline: _Content | None) -> dict[str, Any]:
    if found.is_directory:
        return {"directory": True}
    if found.is_link:
        return {"link": found.target}
    executable = bool(found.mode & stat.S_IXUSR)
    if inline is not None:
        return {inline.field: inline.value, "executable": executable}
    return {"asset": read_asset(path), "executable": executable}


def _make_unreadable(top: Path, path: str, error: OSError) -> str:
    remedy = "have it readable, or exclude it" if path else "name a directory that is there"
    return f"{_show(top, path)} cannot be read: {error.strerror}; {remedy}"


def _show(top: Path, path: str = "") -> str:
    return word(str(top / path))


def _refuse(faults: Iterable[str]) -> None:
    """Raise `ScoreFileError` for *faults*, where there is one."""
    told = [*faults]
    if told:
        more = [f"and {len(told) - _TOLD_MOST} more"] if len(told) > _TOLD_MOST else []
        raise ScoreFileError("; ".join((*told[:_TOLD_MOST], *more)))

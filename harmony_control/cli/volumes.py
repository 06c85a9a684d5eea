"""``harmony volumes AGENT``, ``harmony volume list|save|load``: the volumes of a device, whoever made them.

What is saved is written beside FILE, under a name that nobody can foresee, and gets its own once all of it
is there, and is what was sent. It is for its owner alone: it may hold passwords.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from harmony_control.fleet import Fleet
from harmony_control.store.home import check_agent_id
from harmony_core.amounts import amount
from harmony_core.errors import UsageError
from harmony_core.visible import word
from harmony_core.wire.replies import ListedVolume, to_item

from .common import console, home_of, is_live, note, out
from .confirm import confirm
from .exits import CONVERGED

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Bar", "open_for_writing", "run"]

_HEAD = ("VOLUME", "SIZE", "USED BY", "SCORE")


def run(options: argparse.Namespace) -> int:
    """Print a row for each volume: its size, the containers that use it, and the Scores that want it; or save
    or load one."""
    match options.name, getattr(options, "verb", "list"):
        case "volume", "save":
            return asyncio.run(_save(options))
        case "volume", "load":
            return asyncio.run(_load(options))
        case _:
            return asyncio.run(_volumes(options))


async def _volumes(options: argparse.Namespace) -> int:
    agent_id = check_agent_id(options.agent)
    async with Fleet.connect(home_of(options)) as fleet:
        found = await fleet.device(agent_id).volumes()
    rows = [_row(each) for each in found]
    lines = [_HEAD, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    if not options.json:
        print(_line(_HEAD, widths) if rows else f"{agent_id} has no volumes")
    for each, row in zip(found, rows, strict=True):
        out(options, dict(to_item(each)), _line(row, widths))
    return CONVERGED


def _row(volume: ListedVolume) -> tuple[str, ...]:
    size = "?" if volume.size_bytes is None else amount(volume.size_bytes, "bytes")
    used_by = ", ".join(map(word, volume.used_by)) or "-"
    return (word(volume.name), size, used_by, ", ".join(map(word, volume.scores)) or "-")


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


async def _save(options: argparse.Namespace) -> int:
    agent_id = check_agent_id(options.agent)
    with open_for_writing(options.file) as file:
        async with Fleet.connect(home_of(options)) as fleet:
            with Bar(options) as bar:
                saved = await fleet.device(agent_id).save_volume(
                    options.volume,
                    lambda piece: _write(file, piece),
                    stop=options.stop,
                    tell=bar.tell,
                )
    said = f"saved volume {options.volume} of {agent_id}: {amount(saved.size_bytes, 'bytes')}"
    rested = f"; {', '.join(map(word, saved.rested))} waited meanwhile" if saved.rested else ""
    if options.file == "-":
        note(options, f"{said}, SHA-256 {saved.sha256}{rested}")
    else:
        out(
            options,
            {"volume": options.volume, "file": options.file, **dict(to_item(saved))},
            f"{said} in {options.file}{rested}",
        )
    return CONVERGED


async def _load(options: argparse.Namespace) -> int:
    agent_id = check_agent_id(options.agent)
    with _open_for_reading(options.file) as (file, of_bytes):
        async with Fleet.connect(home_of(options)) as fleet:
            device = fleet.device(agent_id)
            found = {each.name: each for each in await device.volumes()}.get(options.volume)
            if found is None:
                raise UsageError(
                    f"{agent_id} has no volume {options.volume}; push a VolumeScore of that name first, or "
                    f"correct the name: harmony volumes {agent_id} lists them"
                )
            if not options.yes and not await confirm(_question(options, found, of_bytes)):
                out(options, {"event": "not loaded"}, "nothing was changed")
                return CONVERGED
            with Bar(options) as bar:
                loaded = await device.load_volume(
                    options.volume,
                    lambda _, most_bytes: file.read(most_bytes),
                    of_bytes=of_bytes,
                    keep_previous=options.keep_previous,
                    tell=bar.tell,
                )
    rested = f"; stopped meanwhile: {', '.join(map(word, loaded.rested))}" if loaded.rested else ""
    kept = f"; the data from before is at {word(loaded.previous)}" if loaded.previous else ""
    out(
        options,
        {"volume": options.volume, **dict(to_item(loaded))},
        f"volume {options.volume} of {agent_id} has its new data{rested}{kept}",
    )
    return CONVERGED


def _question(options: argparse.Namespace, found: ListedVolume, of_bytes: int | None) -> str:
    size = "" if of_bytes is None else f" ({amount(of_bytes, 'bytes')})"
    has = "what is in it now" if found.size_bytes is None else amount(found.size_bytes, "bytes")
    goes = "kept beside it" if options.keep_previous else "deleted"
    users = ", ".join(map(word, found.used_by))
    stopped = f" Stopped meanwhile, where they run: {users}." if users else ""
    return (
        f"load {options.file}{size} into volume {options.volume} of {options.agent}: {has} is replaced, and "
        f"{goes}.{stopped} Go on?"
    )


@contextmanager
def open_for_writing(name: str) -> Generator[BinaryIO]:
    """Yield the file to write to. It gets its name only once the block has ended without an error."""
    if name == "-":
        if sys.stdout.isatty():
            raise UsageError("an archive is nothing for a terminal; name a file, or pipe it on")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    if os.path.lexists(path):
        raise UsageError(f"{name} is there already; choose another name, or remove it")
    try:
        at, made = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise UsageError(
            f"{name} cannot be written: {error.strerror}; choose another place"
        ) from error
    part = Path(made)
    try:
        with os.fdopen(at, "wb") as file:
            yield file
            try:
                file.flush()
                os.fsync(file.fileno())
                part.rename(path)
            except OSError as error:
                raise UsageError(
                    f"{name} cannot be written: {error.strerror}; make room, or choose another place"
                ) from error
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


@contextmanager
def _open_for_reading(name: str) -> Generator[tuple[BinaryIO, int | None]]:
    """Yield the file to read from, and its size in bytes, where that is known."""
    if name == "-":
        yield sys.stdin.buffer, None
        return
    try:
        at = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}; correct the name") from error
    with os.fdopen(at, "rb") as file:
        yield file, os.fstat(at).st_size


def _write(file: BinaryIO, piece: bytes) -> None:
    try:
        file.write(piece)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(
            f"the archive cannot be written: {error.strerror}; make room, or choose another place"
        ) from error


class Bar:
    """How many bytes of how many, drawn anew on a terminal, and nowhere else; beside the output proper, which
    may be the archive."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if is_live(self._options, sys.stderr):
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                console=console(self._options, sys.stderr),
                transient=True,
            )
            self._task = self._progress.add_task("", total=None)
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def tell(self, what: str, done_bytes: int, of_bytes: int | None) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(
                self._task, description=what, completed=done_bytes, total=of_bytes
            )

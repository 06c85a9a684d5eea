"""F7: files in a directory, each put back durably as soon as somebody has written to it."""

# asyncinotify's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from asyncinotify import Inotify, Mask

from ._work import Entry, write

__all__ = ["main"]


async def kept(root: Path, entries: tuple[Entry, ...]) -> None:
    write(root, entries)
    by_name = {Path(entry.spec["path"]).name: entry for entry in entries}
    with Inotify() as inotify:
        inotify.add_watch(
            root / Path(entries[0].spec["path"]).parent.relative_to("/"), Mask.CLOSE_WRITE
        )
        print("ready", flush=True)
        async for event in inotify:
            entry = by_name.get(str(event.name))
            if entry is None or event.path is None:
                continue
            if event.path.read_bytes() != entry.spec["content"].encode():
                write(root, (entry,))


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    entries = tuple(Entry.model_validate(each) for each in told["entries"])
    asyncio.run(kept(Path(told["root"]), entries))

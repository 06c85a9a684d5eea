"""Agents to be asked for, on folders that stand for devices; and what such a device is and remembers.

A device goes through three manifests: made, changed, and all taken away.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import attrs
import cattrs

from tests.powercuts.converging import Case

__all__ = [
    "CHANGED",
    "MADE",
    "NOTHING",
    "WISHES",
    "Bench",
    "everything",
    "inodes",
    "is_as",
    "remembered",
    "running_bench",
    "statuses",
]

_TREE = Path(__file__).parents[2]

Generation = Mapping[str, Mapping[str, str]]

MADE, CHANGED, NOTHING = 1, 2, 3
WISHES: Mapping[int, Generation] = {
    MADE: {
        "files": {"/etc/old": "new\n", "/srv/app/stays": "1\n", "/srv/app/deep/goes": "1\n"},
        "directories": {"/srv/made": "0750", "/srv/taken": "0700"},
    },
    CHANGED: {
        "files": {"/etc/old": "newer\n", "/srv/app/stays": "2\n", "/srv/app/comes": "2\n"},
        "directories": {"/srv/made": "0700", "/srv/taken": "0700"},
    },
    NOTHING: {"files": {}, "directories": {}},
}


@attrs.frozen
class Bench:
    """Agents to be asked for, and a folder for all their devices."""

    process: subprocess.Popen[str]
    folder: Path
    _numbers: Iterator[int] = attrs.field(factory=itertools.count)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def device(self, like: Path | None = None) -> Path:
        """A new one: as nobody of ours has touched it yet, or a copy."""
        device = self.folder / f"device-{next(self._numbers)}"
        if like is not None:
            return Path(shutil.copytree(like, device))
        for name, mode in {"etc": 0o755, "srv/taken": 0o755, "srv/foreign": 0o711}.items():
            (device / "device" / name).mkdir(parents=True)
            (device / "device" / name).chmod(mode)
        for name, mode in {
            "etc/old": 0o600,
            "etc/foreign": 0o640,
            "srv/foreign/file": 0o604,
        }.items():
            (device / "device" / name).write_text(f"{name} as it was\n")
            (device / "device" / name).chmod(mode)
        return device

    def agent(self, device: Path, generation: int, *, is_watched: bool = False) -> int:
        """Run one until *generation* is dealt with: how it ended. *is_watched*: as in `Case`."""
        case = Case(
            folder=str(device), generation=generation, is_watched=is_watched, **WISHES[generation]
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(cattrs.unstructure(case)), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, "not the agent was struck, but whoever starts it"
        return os.waitstatus_to_exitcode(int(answer))


@contextmanager
def running_bench(folder: Path) -> Generator[Bench]:
    """One whose devices are in *folder*."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.powercuts.converging"],
        cwd=_TREE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Bench(process, folder)


def everything(device: Path) -> dict[str, tuple[str, int, str]]:
    """What is there, by path: kind, mode, content."""
    return {
        str(path.relative_to(device / "device")): (
            "file" if path.is_file() else "directory",
            path.stat().st_mode & 0o7777,
            path.read_text() if path.is_file() else "",
        )
        for path in (device / "device").rglob("*")
    }


def remembered(device: Path) -> dict[str, object]:
    """What the agent holds on to: claims, records, and what was there before.

    Neither of what it has let go, nor what it wrote before the last time: who is killed may never have.
    """
    with closing(sqlite3.connect(device / "state/agent.db")) as database:
        claims = database.execute("SELECT score, resource, spec_hash, intent FROM claim").fetchall()
        records = database.execute("SELECT resource, json FROM record").fetchall()
    originals = device / "state/originals"
    return {
        "claims": sorted(claims),
        "records": {
            resource: {**record, "wrote": record.get("wrote", [])[-1:]}
            for resource, text in records
            if "left" not in (record := json.loads(text))
        },
        "originals": sorted((path.name, path.read_text()) for path in originals.iterdir())
        if originals.exists()
        else [],
    }


def inodes(device: Path, generation: int) -> dict[str, int]:
    """Of the files that are what *generation* wants already."""
    return {
        path: (device / "device" / path[1:]).stat().st_ino
        for path, text in WISHES[generation]["files"].items()
        if (device / "device" / path[1:]).exists()
        and (device / "device" / path[1:]).read_text() == text
    }


def statuses(device: Path) -> dict[str, str]:
    told_of = json.loads((device / "told.json").read_text())
    return {name: page["outcome"]["status"] for name, page in told_of["scores"].items()}


def is_as(device: Path, undisturbed: Path) -> None:
    assert everything(device) == everything(undisturbed)
    assert remembered(device) == remembered(undisturbed)
    assert statuses(device).keys() == statuses(undisturbed).keys()

"""A folder that stands for a device, as it was before anybody of ours touched it; what it is, and remembers.

A device goes through three manifests: made, changed, and all taken away.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

__all__ = [
    "CHANGED",
    "MADE",
    "NOTHING",
    "WISHES",
    "everything",
    "found_at",
    "inodes",
    "lay_out",
    "remembered",
]

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


def lay_out(device: Path) -> None:
    """Put into *device* what is there before."""
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


def everything(device: Path) -> dict[str, tuple[str, int, str]]:
    """What is there, by path: kind, mode, content. Not while an agent may change it."""
    root = device / "device"
    found = {str(path.relative_to(root)): found_at(path) for path in root.rglob("*")}
    return {path: each for path, each in found.items() if each is not None}


def found_at(path: Path) -> tuple[str, int, str] | None:
    """Return kind, mode and content of what is at *path*; None for nothing."""
    try:
        mode = path.stat().st_mode & 0o7777
        return ("directory", mode, "") if path.is_dir() else ("file", mode, path.read_text())
    except FileNotFoundError:
        return None


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

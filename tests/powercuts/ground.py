"""A folder in which short programs are recorded, and what a cut may leave of what they have asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attrs

from .disk import Cut, Disk
from .recording import Recording

__all__ = ["Ground"]

_TREE = Path(__file__).parents[2]


@attrs.frozen
class Ground:
    """A folder that a program may write to while it is recorded."""

    root: Path
    said: Path
    log: Path
    copies: Path

    def run(self, program: str) -> Disk:
        """Run *program*, in which ROOT and SAID are the folder, and the file of what is said."""
        recording = Recording(self.root.parent, self.log)
        disk = Disk(self.root, self.said)
        text = f"import os\n{program}".replace("ROOT", str(self.root)).replace(
            "SAID", str(self.said)
        )
        subprocess.run([*recording.command, sys.executable, "-c", text], check=True, cwd=_TREE)
        disk.record(recording.read())
        return disk

    def found(self, disk: Disk, path: str) -> dict[bytes | None, list[Cut]]:
        """Return what a cut may leave in *path*, and by which cuts."""
        found: dict[bytes | None, list[Cut]] = {}
        for number, cut in enumerate(disk.cuts()):
            copy = self.copies / f"{number}"
            disk.lay_out(cut, copy)
            content = (copy / path).read_bytes() if (copy / path).exists() else None
            found.setdefault(content, []).append(cut)
        return found

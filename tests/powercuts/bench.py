"""Agents to be asked for, on folders that stand for devices."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import cattrs

from tests.agent.folder_device import WISHES, everything, lay_out, remembered
from tests.powercuts.converging import Case

__all__ = [
    "Bench",
    "is_as",
    "running_bench",
    "statuses",
]

_TREE = Path(__file__).parents[2]


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
            return Path(shutil.copytree(like, device, ignore=shutil.ignore_patterns("*.sock")))
        lay_out(device)
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


def statuses(device: Path) -> dict[str, str]:
    told_of = json.loads((device / "told.json").read_text())
    return {name: page["outcome"]["status"] for name, page in told_of["scores"].items()}


def is_as(device: Path, undisturbed: Path) -> None:
    assert everything(device) == everything(undisturbed)
    assert remembered(device) == remembered(undisturbed)
    assert statuses(device).keys() == statuses(undisturbed).keys()

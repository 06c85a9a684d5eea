"""Agents on folders that are killed at a system call, or whose call fails; and what is to come of it.

A device goes through three manifests: made, changed, and all taken away. First the calls of an undisturbed
agent are listed. Then agents are struck, one at each of these calls, on a copy of what the device was before.

::

    with a_bench(folder) as bench:
        undisturbed = Undisturbed.of(bench, WRITING)
        ended = bench.traced(device, CHANGED, "inject=fsync:error=EIO:when=3", calls=["fsync"])
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

import attrs
import cattrs

from harmony_core.outcome import Failure, Noop, Success
from harmony_core.wire.actual_state import ActualState, from_json
from tests.agent.converging import Case, id_of
from tests.agent.folder_device import WISHES, everything, found_at, lay_out, remembered
from tests.topology.tracing import need_strace, traced

__all__ = [
    "WRITING",
    "Bench",
    "Run",
    "Strike",
    "Undisturbed",
    "a_bench",
    "events",
    "kept",
]

TREE = Path(__file__).parents[2]
WRITING = (
    *("write", "pwrite64", "fsync", "fdatasync", "ftruncate", "fallocate", "fchmod", "fchown"),
    *("rename", "renameat", "linkat", "mkdir", "mkdirat", "unlink", "unlinkat", "rmdir"),
)
"""All that can change a disk, but for opening a file anew: what that leaves is met by the next of these."""


@attrs.frozen(order=True)
class Strike:
    """The *number*th call named *name* that any one thread of an agent makes."""

    generation: int
    name: str
    number: int


@attrs.frozen
class Run:
    """How an agent's run ended, as `os.waitstatus_to_exitcode` has it, and what it told on the way."""

    code: int
    told: Sequence[ActualState]
    lies: Sequence[str]
    """Where a Score was told to be in order, and the device was otherwise at that moment."""
    said: str
    """On its standard error."""

    @property
    def statuses(self) -> dict[str, str]:
        """What was told of each Score last."""
        last = self.told[-1]
        return {name: page.outcome.status for name, page in last.scores.items()}

    @property
    def failures(self) -> list[Failure]:
        """All that was told on the way."""
        pages = (page for state in self.told for page in state.scores.values())
        return [page.outcome for page in pages if isinstance(page.outcome, Failure)]


@attrs.frozen
class Bench:
    """Agents to be asked for, and a folder for all their devices."""

    process: subprocess.Popen[str]
    folder: Path
    stderr: IO[str]
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

    def agent(self, device: Path, generation: int) -> Run:
        """Run one until *generation* is dealt with."""
        case = Case(folder=str(device), generation=generation, **WISHES[generation])
        self._say(json.dumps(cattrs.unstructure(case)))
        told: list[ActualState] = []
        lies: list[str] = []
        self.stderr.seek(0)
        self.stderr.truncate()
        while "told" in (answer := self._heard()):
            told.append(from_json(answer["told"].encode(), ActualState))
            lies += find_lies(device, generation, told[-1])
            self._say("")
        self.stderr.seek(0)
        code = os.waitstatus_to_exitcode(answer["status"])
        return Run(code, told, lies, self.stderr.read())

    def traced(
        self, device: Path, generation: int, *expressions: str, calls: Collection[str] = WRITING
    ) -> Run:
        with traced(self.process.pid, self.log, expressions, calls=calls):
            return self.agent(device, generation)

    def strikes(self, generation: int) -> set[Strike]:
        """Of the agent that was traced last."""
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for line in self.log.read_text().splitlines():
            if matched := re.match(r"(\d+) +(\w+)\(", line):
                counts[matched[1]][matched[2]] += 1
        counts.pop(str(self.process.pid), None)
        return {
            Strike(generation, name, number)
            for thread in counts.values()
            for name, count in thread.items()
            for number in range(1, count + 1)
        }

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)

    def _heard(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "not the agent was struck, but whoever starts it"
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def a_bench(folder: Path) -> Generator[Bench]:
    """A bench in *folder*; skips the test where nothing can be traced."""
    need_strace()
    with (folder / "stderr").open("w+") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.agent.converging"],
            cwd=TREE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        with process:
            yield Bench(process, folder, stderr)


@attrs.frozen
class Undisturbed:
    """A device before and after each generation, and where an agent can be struck on the way."""

    before: Mapping[int, Path]
    after: Mapping[int, Path]
    statuses: Mapping[int, Mapping[str, str]]
    strikes: Sequence[Strike]

    @classmethod
    def of(cls, bench: Bench, calls: Collection[str]) -> Undisturbed:
        strikes: set[Strike] = set()
        before: dict[int, Path] = {}
        after: dict[int, Path] = {}
        statuses: dict[int, Mapping[str, str]] = {}
        device = bench.device()
        for generation in WISHES:
            before[generation] = device
            device = after[generation] = bench.device(device)
            run = bench.traced(device, generation, calls=calls)
            assert run.code == 0, run.said
            assert not run.lies
            statuses[generation] = run.statuses
            strikes |= bench.strikes(generation)
        return cls(before, after, statuses, sorted(strikes))

    def differences(self, device: Path, generation: int) -> list[str]:
        """Return in what *device* is not what it would be after *generation*, or remembers something else."""
        undisturbed = self.after[generation]
        found: dict[str, object] = {**everything(device), **remembered(device)}
        right: dict[str, object] = {**everything(undisturbed), **remembered(undisturbed)}
        differing = [name for name in {**right, **found} if found.get(name) != right.get(name)]
        return [
            *(f"{name} is {found.get(name)} instead of {right.get(name)}" for name in differing),
            *(f"{name} is left behind" for name in kept(device) - kept(undisturbed)),
        ]

    def noted_twice(self, device: Path, generation: int) -> list[tuple[int, str]]:
        """Return what was noted of *device* more often than undisturbed: the manifest and the resource."""
        noted, right = (
            Counter(event[:2] for event in events(each))
            for each in (device, self.after[generation])
        )
        return sorted((noted - right).elements())


def find_lies(device: Path, generation: int, state: ActualState) -> list[str]:
    """Return what *state* says to be in order as *generation* wants it, and is not."""
    if state.observed_generation != generation:
        return []
    wish = WISHES[generation]
    wanted = {
        **{path: ("file", 0o644, text) for path, text in wish["files"].items()},
        **{path: ("directory", int(mode, 8), "") for path, mode in wish["directories"].items()},
    }
    return [
        f"{path} is told to be in order, and is {found}"
        for path, right in wanted.items()
        if (page := state.scores.get(id_of(path))) is not None
        and page.observed_generation == generation
        and isinstance(page.outcome, Success | Noop)
        and (found := found_at(device / "device" / path[1:])) != right
    ]


def kept(device: Path) -> set[str]:
    """The names of the files that the agent keeps, but for SQLite's own."""
    names = {path.name for path in (device / "state").iterdir()}
    return names - {"agent.db-wal", "agent.db-shm", "originals"}


def events(device: Path) -> list[tuple[int, str, str]]:
    """What was noted of changes, oldest first: the generation, the resource, what was done.

    Not what was left alone: that may be said as often as somebody looks.
    """
    with closing(sqlite3.connect(device / "state/agent.db")) as database:
        rows = database.execute("SELECT json FROM event ORDER BY seq").fetchall()
    noted = [json.loads(text) for (text,) in rows]
    return [
        (each["generation"], each["resource"], ", ".join(each["actions"]))
        for each in noted
        if not all(action.startswith("left") for action in each["actions"])
    ]

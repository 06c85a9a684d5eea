"""kill -9 at a system call of a whole converge: the next agent ends where an undisturbed one would have.

A device goes through three manifests: made, changed, and all taken away. First the calls of an undisturbed
agent are listed, those that change anything on disk: its database, what it keeps, and the device's own files.
Then agents are struck, one at each of these calls, on a copy of what the device was before. The agent
that comes next is asked for the same, or already for the next manifest.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import attrs
import cattrs
import pytest

from tests.agent.converging import Case
from tests.soak import runs, seed
from tests.topology.tracing import need_strace, traced

TREE = Path(__file__).parents[2]
STRUCK = (
    *("write", "pwrite64", "fsync", "fdatasync", "ftruncate", "fallocate", "fchmod", "fchown"),
    *("rename", "renameat", "linkat", "mkdir", "mkdirat", "unlink", "unlinkat", "rmdir"),
)
"""All that can change a disk, but for opening a file anew: what that leaves is met by the next of these."""

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


@attrs.frozen(order=True)
class Strike:
    """The *number*th call named *name* that any one thread of an agent makes."""

    generation: int
    name: str
    number: int


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

    def agent(self, device: Path, generation: int) -> int:
        """Run one until *generation* is dealt with: how it ended."""
        case = Case(folder=str(device), generation=generation, **WISHES[generation])
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(cattrs.unstructure(case)), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, "not the agent was struck, but whoever starts it"
        return os.waitstatus_to_exitcode(int(answer))

    def traced(self, device: Path, generation: int, *expressions: str) -> int:
        with traced(self.process.pid, self.log, expressions, calls=STRUCK):
            return self.agent(device, generation)

    def struck(self, device: Path, strike: Strike) -> tuple[Path, Strike]:
        """A copy of *device*, with an agent killed there; sooner, where it makes fewer calls this time."""
        for number in range(strike.number, 0, -1):
            copy = self.device(device)
            at = f"inject={strike.name}:signal=KILL:when={number}"
            if self.traced(copy, strike.generation, at) == -signal.SIGKILL:
                return copy, attrs.evolve(strike, number=number)
        raise AssertionError(f"never made: {strike}")

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


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    need_strace()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.agent.converging"],
        cwd=TREE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Bench(process, tmp_path)


@attrs.frozen
class Undisturbed:
    """A device before and after each generation, and where an agent can be struck on the way."""

    before: Mapping[int, Path]
    after: Mapping[int, Path]
    strikes: Sequence[Strike]

    @classmethod
    def of(cls, bench: Bench) -> Undisturbed:
        strikes: set[Strike] = set()
        before: dict[int, Path] = {}
        after: dict[int, Path] = {}
        device = bench.device()
        for generation in WISHES:
            before[generation] = device
            device = after[generation] = bench.device(device)
            assert bench.traced(device, generation) == 0
            strikes |= bench.strikes(generation)
        return cls(before, after, sorted(strikes))


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


def test_undisturbed_it_makes_what_is_wanted_and_gives_back_what_was_there(bench: Bench) -> None:
    undisturbed = Undisturbed.of(bench)
    found = everything(undisturbed.after[CHANGED])
    assert found["etc/old"] == ("file", 0o644, "newer\n")
    assert found["srv/made"] == ("directory", 0o700, "")
    assert "srv/app/deep" not in found
    assert everything(undisturbed.after[NOTHING]) == everything(undisturbed.before[MADE])
    assert remembered(undisturbed.after[NOTHING])["claims"] == []
    assert remembered(undisturbed.after[NOTHING])["originals"] == []


@pytest.mark.soak
def test_killed_at_a_system_call_the_next_agent_ends_where_an_undisturbed_one_would(
    bench: Bench,
) -> None:
    undisturbed = Undisturbed.of(bench)
    dice = random.Random(seed(f"{len(undisturbed.strikes)} calls to be struck"))
    for strike in chosen(undisturbed.strikes, runs(len(undisturbed.strikes)), dice):
        device, at = bench.struck(undisturbed.before[strike.generation], strike)
        following = dice.choice([each for each in WISHES if each >= strike.generation])
        print(f"struck at {at}, then asked for {following}")
        ready = inodes(device, following)
        assert bench.agent(device, following) == 0
        is_as(device, undisturbed.after[following])
        if following == strike.generation:
            assert statuses(device) == statuses(undisturbed.after[following])
        assert ready.items() <= inodes(device, following).items(), "written twice"
        assert bench.agent(device, NOTHING) == 0
        is_as(device, undisturbed.after[NOTHING])


def chosen(strikes: Sequence[Strike], count: int, dice: random.Random) -> list[Strike]:
    """So many of them, and of each kind of call as many as of any other, as far as there are."""
    kinds: defaultdict[tuple[int, str], list[Strike]] = defaultdict(list)
    for each in dice.sample(strikes, len(strikes)):
        kinds[each.generation, each.name].append(each)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*kinds.values()))
    return list(itertools.islice(filter(None, itertools.cycle(in_turn)), count))

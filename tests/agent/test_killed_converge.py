"""kill -9 at a system call of a whole converge: the next agent ends where an undisturbed one would have.

A device goes through three manifests: made, changed, and all taken away. First the calls of an undisturbed
agent are listed, those that change anything on disk: its database, what it keeps, and the device's own files.
Then agents are struck, one at each of these calls, on a copy of what the device was before. The agent
that comes next is asked for the same, or already for the next manifest.
"""

from __future__ import annotations

import itertools
import random
import re
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import pytest

from tests.agent.bench import (
    CHANGED,
    MADE,
    NOTHING,
    WISHES,
    Bench,
    everything,
    inodes,
    is_as,
    remembered,
    running_bench,
    statuses,
)
from tests.soak import runs, seed
from tests.topology.tracing import need_strace, traced

STRUCK = (
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


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    need_strace()
    with running_bench(tmp_path) as running:
        yield running


def run_traced(bench: Bench, device: Path, generation: int, *expressions: str) -> int:
    with traced(bench.process.pid, bench.log, expressions, calls=STRUCK):
        return bench.agent(device, generation)


def run_struck(bench: Bench, device: Path, strike: Strike) -> tuple[Path, Strike]:
    """A copy of *device*, with an agent killed there; sooner, where it makes fewer calls this time."""
    for number in range(strike.number, 0, -1):
        copy = bench.device(device)
        at = f"inject={strike.name}:signal=KILL:when={number}"
        if run_traced(bench, copy, strike.generation, at) == -signal.SIGKILL:
            return copy, attrs.evolve(strike, number=number)
    raise AssertionError(f"never made: {strike}")


def strikes_of(bench: Bench, generation: int) -> set[Strike]:
    """Of the agent that was traced last."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for line in bench.log.read_text().splitlines():
        if matched := re.match(r"(\d+) +(\w+)\(", line):
            counts[matched[1]][matched[2]] += 1
    counts.pop(str(bench.process.pid), None)
    return {
        Strike(generation, name, number)
        for thread in counts.values()
        for name, count in thread.items()
        for number in range(1, count + 1)
    }


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
            assert run_traced(bench, device, generation) == 0
            strikes |= strikes_of(bench, generation)
        return cls(before, after, sorted(strikes))


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
        device, at = run_struck(bench, undisturbed.before[strike.generation], strike)
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

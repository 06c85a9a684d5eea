"""kill -9 at a system call of a whole converge: the next agent ends where an undisturbed one would.

Agents are struck, one at each call that changes anything on disk: the agent's database, what it keeps, and
the device's own files. The agent that comes next is asked for the same, or already for the next manifest.
"""

from __future__ import annotations

import itertools
import random
import signal
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from tests.agent.folder_device import CHANGED, MADE, NOTHING, WISHES, everything, inodes, remembered
from tests.agent.struck import WRITING, Bench, Strike, Undisturbed, a_bench
from tests.soak import runs, seed, tell


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with a_bench(tmp_path) as bench:
        yield bench


def struck(bench: Bench, device: Path, strike: Strike) -> tuple[Path, Strike]:
    """A copy of *device*, with an agent killed there; sooner, where it makes fewer calls this time."""
    for number in range(strike.number, 0, -1):
        copy = bench.device(device)
        at = f"inject={strike.name}:signal=KILL:when={number}"
        run = bench.traced(copy, strike.generation, at)
        assert not run.lies
        if run.code == -signal.SIGKILL:
            return copy, attrs.evolve(strike, number=number)
    raise AssertionError(f"never made: {strike}")


def test_undisturbed_it_makes_what_is_wanted_and_gives_back_what_was_there(bench: Bench) -> None:
    undisturbed = Undisturbed.of(bench, WRITING)
    found = everything(undisturbed.after[CHANGED])
    assert found["etc/old"] == ("file", 0o644, "newer\n")
    assert found["srv/made"] == ("directory", 0o700, "")
    assert "srv/app/deep" not in found
    assert everything(undisturbed.after[NOTHING]) == everything(undisturbed.before[MADE])
    assert remembered(undisturbed.after[NOTHING])["claims"] == []
    assert remembered(undisturbed.after[NOTHING])["originals"] == []


@pytest.mark.security
def test_killed_at_a_system_call_the_next_agent_ends_where_an_undisturbed_one_would(
    bench: Bench,
) -> None:
    undisturbed = Undisturbed.of(bench, WRITING)
    dice = random.Random(seed(f"{len(undisturbed.strikes)} calls to be struck"))
    strikes = chosen(undisturbed.strikes, runs(len(undisturbed.strikes), part=30), dice)
    for strike in strikes:
        device, at = struck(bench, undisturbed.before[strike.generation], strike)
        following = dice.choice([each for each in WISHES if each >= strike.generation])
        print(f"struck at {at}, then asked for {following}")
        ready = inodes(device, following)
        again = bench.agent(device, following)
        assert (again.code, again.lies) == (0, []), again.said
        assert undisturbed.differences(device, following) == []
        assert again.statuses.keys() == undisturbed.statuses[following].keys()
        if following == strike.generation:
            assert again.statuses == undisturbed.statuses[following]
            assert undisturbed.noted_twice(device, following) == []
        assert ready.items() <= inodes(device, following).items(), "written twice"
        assert bench.agent(device, NOTHING).code == 0
        assert undisturbed.differences(device, NOTHING) == []
    tell("kills", f"{len(strikes)} at calls that write: 0 torn, 0 double, 0 left behind")


def chosen(strikes: Sequence[Strike], count: int, dice: random.Random) -> list[Strike]:
    """So many of them, and of each kind of call as many as of any other, as far as there are."""
    kinds: defaultdict[tuple[int, str], list[Strike]] = defaultdict(list)
    for each in dice.sample(strikes, len(strikes)):
        kinds[each.generation, each.name].append(each)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*kinds.values()))
    return list(itertools.islice(filter(None, itertools.cycle(in_turn)), count))

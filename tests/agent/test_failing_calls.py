"""Any system call of a whole converge fails once: it is told in words, nothing is a lie, the end is the same.

The sister of `test_killed_converge`: the call that is struck answers with an error, as of a disk that is full
or failing, of memory or descriptors that are used up. The same agent goes on.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest

from tests.agent.converging import DEFECT, DONE, GAVE_UP
from tests.agent.folder_device import CHANGED, MADE
from tests.agent.struck import Bench, Run, Strike, Undisturbed, a_bench
from tests.soak import runs, tell

_DISK = ("ENOSPC", "EIO", "EDQUOT")
_NAMES = ("EROFS", "EIO", "EACCES", "ENOSPC")
_LOOK = ("EIO", "ENOMEM")
ERRORS: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(("write", "pwrite64", "fallocate", "ftruncate", "fsync", "fdatasync"), _DISK),
    **dict.fromkeys(("rename", "renameat", "linkat", "mkdir", "mkdirat"), _NAMES),
    **dict.fromkeys(("unlink", "unlinkat", "rmdir"), ("EROFS", "EIO", "EACCES")),
    **dict.fromkeys(("fchmod", "fchown"), ("EROFS", "EIO", "EPERM")),
    "openat2": ("EMFILE", "ENOMEM", "EACCES", "EIO"),
    "openat": ("EMFILE", "ENOMEM"),
    **dict.fromkeys(("read", "pread64", "getdents64", "newfstatat", "statfs"), _LOOK),
    "flistxattr": ("EIO",),
    "clone3": ("EAGAIN",),
    **dict.fromkeys(("epoll_create1", "socketpair", "inotify_init1"), ("EMFILE",)),
    "inotify_add_watch": ("ENOSPC",),
}
"""What each may answer.

Left out are locks (fcntl), which on a disk of the device's own are always to be had and given back, and
memory for a thread (mmap): without it CPython waits for ever for the thread to begin, and systemd's watchdog
ends the agent.
"""
BESIDE = 3
"""So many agents at a time: who was refused something waits for a second before the next try."""


@attrs.frozen(order=True)
class Fault:
    """The call at *strike* answers *error*: the one of each thread that makes as many."""

    strike: Strike
    error: str

    @property
    def expression(self) -> str:
        return f"inject={self.strike.name}:error={self.error}:when={self.strike.number}"


@attrs.define
class Tally:
    """What came of the faults."""

    refused: int = 0
    """It was told of a Score as its FAILURE, or by giving up at the start."""
    went_on: int = 0
    wrong: list[str] = attrs.field(factory=list[str])


def judge(bench: Bench, undisturbed: Undisturbed, fault: Fault, tally: Tally) -> None:
    """Have an agent meet *fault*, and enter what came of it."""
    generation = fault.strike.generation
    device = bench.device(undisturbed.before[generation])
    run = bench.traced(device, generation, fault.expression, calls=[fault.strike.name])
    problems = problems_of(run)
    if run.code != DONE or undisturbed.differences(device, generation):
        # Such as what it wanted to note last, and could not: the next agent finds out, and settles it.
        again = bench.agent(device, generation)
        problems += problems_of(again)
        if again.code != DONE:
            problems.append(f"the next one ended by {again.code}")
    problems += undisturbed.differences(device, generation)
    problems += [f"noted once more: {each}" for each in undisturbed.noted_twice(device, generation)]
    if run.failures or run.code == GAVE_UP:
        tally.refused += 1
    else:
        tally.went_on += 1
    if problems:
        tally.wrong.append(f"{fault}: {'; '.join(problems)}\n{run.said[-3000:]}")


def problems_of(run: Run) -> list[str]:
    """Return what *run* should not have told or done, whatever it met."""
    problems = [*run.lies]
    if run.code == DEFECT:
        problems.append("it ended by what is no error of Harmony's")
    elif run.code not in {DONE, GAVE_UP}:
        problems.append(f"it was ended by {run.code}")
    problems += [
        f"{failure.error.code}: {failure.error.message}"
        for failure in run.failures
        if failure.error.code == "InternalError" or ";" not in failure.error.message
    ]
    for state in run.told:
        problems += [
            f"{each.type}: {each.reason}: {each.message}"
            for each in state.conditions
            if each.reason == "InternalError"
        ]
    return list(dict.fromkeys(problems))


def spread(faults: Sequence[Fault], count: int) -> list[Fault]:
    """Return *count* of them, of each call and error as many as of any other, as far as there are."""
    kinds: defaultdict[tuple[str, str], list[Fault]] = defaultdict(list)
    for each in faults:
        kinds[each.strike.name, each.error].append(each)
    # Of each kind not first those of the start.
    apart = (each[len(each) // 2 :] + each[: len(each) // 2] for each in kinds.values())
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*apart))
    return [each for each in in_turn if each is not None][:count]


def meet(bench: Bench, undisturbed: Undisturbed, due: queue.Queue[Fault], tally: Tally) -> None:
    """Have agents of *bench* meet what is *due*, until nothing is."""
    while True:
        try:
            fault = due.get_nowait()
        except queue.Empty:
            return
        try:
            judge(bench, undisturbed, fault, tally)
        except Exception as error:  # noqa: BLE001 - it is told with the fault, and the others go on
            tally.wrong.append(f"{fault}: {error!r}")


DIRECTED = [
    *(Fault(Strike(CHANGED, "pread64", number), "EIO") for number in (4, 6)),
    Fault(Strike(MADE, "clone3", 1), "EAGAIN"),
    Fault(Strike(MADE, "openat", 3), "EMFILE"),
]
"""A page of the database is not read once; a thread, or the device's root, is not had once."""


@pytest.mark.parametrize(
    "fault", DIRECTED, ids=lambda fault: f"{fault.strike.name}-{fault.strike.number}"
)
def test_what_is_refused_once_loses_nothing_and_is_offered_again(
    tmp_path: Path, fault: Fault
) -> None:
    tally = Tally()
    with a_bench(tmp_path) as bench:
        undisturbed = Undisturbed.of(bench, [fault.strike.name])
        judge(bench, undisturbed, fault, tally)
    assert "INJECTED" in bench.log.read_text()
    assert not tally.wrong, tally.wrong[0]


@pytest.mark.security
def test_whichever_call_of_a_converge_fails_it_is_told_in_words_and_the_end_is_the_same(
    tmp_path: Path,
) -> None:
    due: queue.Queue[Fault] = queue.Queue()
    tallies = [Tally() for _ in range(BESIDE)]
    with ExitStack() as stack:
        threads: list[threading.Thread] = []
        for tally in tallies:
            (folder := tmp_path / f"bench-{len(threads)}").mkdir()
            bench = stack.enter_context(a_bench(folder))
            undisturbed = Undisturbed.of(bench, ERRORS)
            if due.empty():
                every = [
                    Fault(strike, error)
                    for strike in undisturbed.strikes
                    for error in ERRORS[strike.name]
                ]
                for each in spread(every, runs(len(every), part=150)):
                    due.put(each)
            threads.append(
                threading.Thread(target=meet, args=(bench, undisturbed, due, tally), daemon=True)
            )
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    wrong = [each for tally in tallies for each in tally.wrong]
    refused, went_on = (
        sum(getattr(tally, name) for tally in tallies) for name in ("refused", "went_on")
    )
    tell(
        "failing calls",
        f"{refused + went_on} faults: {refused} told as a failure, {went_on} got over unseen; "
        f"{len(wrong)} ended otherwise than undisturbed, or in other words than it should",
    )
    assert not wrong, "\n\n".join(wrong)

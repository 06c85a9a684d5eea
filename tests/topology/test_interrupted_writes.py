"""Writes that are killed, or fail, at every single system call: each file is old or new, and whole.

First the calls of an undisturbed write are listed; then, one after another, each is struck.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from harmony_pi_topology.posix.root import Draft, Root
from tests.soak import runs
from tests.topology.place import OLD, opener_named
from tests.topology.traced_writer import (
    LEAKED,
    NEW,
    REFUSED,
    STRUCK,
    WRITTEN,
    Case,
)
from tests.topology.tracing import Call, Writer, calls_of, need_strace, traced, writer

ERRORS = ("ENOSPC", "EDQUOT", "EROFS", "EIO", "EMFILE", "ENOMEM", "EACCES")


@attrs.frozen(kw_only=True)
class Way:
    """A way in which files are written."""

    resolver: str
    named: bool = False
    """Whether temporary files have names, as on file systems that know no others."""
    paths: tuple[str, ...] = ("/etc/old", "/etc/sub/new")

    @property
    def is_struck_already(self) -> frozenset[str]:
        """Calls that fail as a part of this way. strace fails each call in one manner only."""
        return frozenset({"openat"} if self.named else ())

    @property
    def expressions(self) -> list[str]:
        """For strace. Every file without a name is refused, opened with one by the next call, and read again
        by the one after."""
        when = f"{STRUCK}..{STRUCK + 3 * len(self.paths) - 3}+3"
        return [f"inject=openat:error=EOPNOTSUPP:when={when}"] if self.named else []

    def padding(self, calls: list[Call]) -> dict[str, int]:
        """So that the first call refused is the first that there is, among *calls*."""
        first = next(call for call in calls if "O_TMPFILE" in call.arguments)
        return {"openat": STRUCK - first.number} if self.named else {}


WAYS = {
    "openat2": Way(resolver="openat2"),
    "walk": Way(resolver="walk"),
    "named temporary files": Way(resolver="openat2", named=True, paths=("/etc/old", "/etc/new")),
}


@attrs.frozen
class Bench:
    """A writer, a way of writing, and a folder for all the devices to be written to."""

    writer: Writer
    way: Way
    folder: Path
    calls: list[Call] = attrs.field(factory=list[Call])
    """Of an undisturbed write."""
    _numbers: Iterator[int] = attrs.field(factory=itertools.count)

    @property
    def strikes(self) -> list[Call]:
        """The calls to be struck, one a case."""
        return [call for call in self.calls if call.name not in self.way.is_struck_already]

    def case(self, struck: Call | None = None) -> Case:
        """A new device, where /etc/old is there and nothing else; and where to strike."""
        root = self.folder / f"device-{next(self._numbers)}"
        (root / "etc").mkdir(parents=True)
        (root / "etc/old").write_bytes(OLD)
        (root / "etc/old").chmod(0o600)
        padding = self.way.padding(self.calls) if self.calls else {}
        if struck is not None:
            padding[struck.name] = STRUCK - struck.number
        return Case(
            root=str(root),
            resolver=self.way.resolver,
            paths=list(self.way.paths),
            padding=padding,
        )

    @contextmanager
    def striking(self, *expressions: str) -> Generator[None]:
        told = [*(self.way.expressions if self.calls else []), *expressions]
        with traced(self.writer.pid, self.log, told):
            yield

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def observed(self) -> Bench:
        """The same, knowing the calls of an undisturbed write."""
        with self.striking():
            ended = self.writer.ask(self.case())
        assert os.waitstatus_to_exitcode(ended.status) == WRITTEN
        return attrs.evolve(self, calls=calls_of(self.log, ended.pid))


@pytest.fixture(scope="module", params=list(WAYS.values()), ids=list(WAYS))
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    need_strace()
    way: Way = request.param
    opener_named(way.resolver)
    with writer() as writing:
        bench = Bench(writing, way, tmp_path_factory.mktemp("bench")).observed()
        # Once more, now that it is known where files without names are asked for.
        yield bench.observed() if way.named else bench


def states(case: Case) -> list[str]:
    """Of each file: absent, old or new. Anything else is torn, and fails the test."""
    return [_state(Path(case.root + path)) for path in case.paths]


def _state(path: Path) -> str:
    if not path.exists():
        return "absent"
    content, mode = path.read_bytes(), path.stat().st_mode & 0o7777
    known = {(OLD, 0o600): "old", (NEW, 0o640): "new"}
    assert (content, mode) in known, f"{path} is torn: {len(content)} bytes, mode {mode:o}"
    return known[content, mode]


def leftovers(case: Case) -> list[Path]:
    """Whatever is there that nobody asked for."""
    wanted = {Path(case.root + path) for path in case.paths}
    return [path for path in Path(case.root).rglob("*") if path.is_file() and path not in wanted]


def resume(case: Case) -> None:
    """What an agent does when it starts again."""
    with Root(case.root, opener=opener_named(case.resolver)) as root:
        root.sweep({path.rpartition("/")[0] for path in case.paths})
        for path in case.paths:
            root.make_parents(path)
        root.write_many([Draft(path=path, content=NEW, mode=0o640) for path in case.paths])
    assert states(case) == ["new", "new"]
    assert leftovers(case) == []


def test_the_calls_are_those_that_make_a_write_durable(bench: Bench) -> None:
    names = [call.name for call in bench.calls]
    for name, times in {"fallocate": 2, "fchown": 2, "fsync": 3, "renameat": 2}.items():
        assert names.count(name) >= times
    assert names.count("linkat") == (0 if bench.way.named else 2)
    # Everything written is on disk before the first name is given.
    written = [n for n, name in enumerate(names) if name in {"write", "fchmod", "fallocate"}]
    first_given = names.index("renameat")
    assert max(written) < first_given
    assert "fsync" in names[max(written) : first_given]
    assert "fsync" in names[first_given:]


def test_killed_at_any_system_call_each_file_is_old_or_new_and_writing_is_resumed(
    bench: Bench,
) -> None:
    names = sorted({call.name for call in bench.strikes})
    seen: set[tuple[str, ...]] = set()
    cases = [bench.case(call) for call in bench.strikes]
    with bench.striking(*(f"inject={name}:signal=KILL:when={STRUCK}" for name in names)):
        for case in cases:
            ended = bench.writer.ask(case)
            assert os.waitstatus_to_exitcode(ended.status) == -signal.SIGKILL
            seen.add(tuple(states(case)))
    # One after another, in order.
    assert seen == {("old", "absent"), ("new", "absent"), ("new", "new")}
    for case in cases:
        resume(case)


@pytest.mark.soak
def test_whichever_system_call_fails_it_is_told_and_nothing_is_torn_lost_or_left(
    bench: Bench,
) -> None:
    every = [(call, error) for call in bench.strikes for error in ERRORS]
    by_error: dict[str, list[Call]] = defaultdict(list)
    for call, error in every[:: len(every) // runs(len(every))]:
        by_error[error].append(call)
    for error, calls in by_error.items():
        names = {call.name for call in calls}
        with bench.striking(*(f"inject={name}:error={error}:when={STRUCK}" for name in names)):
            for call in calls:
                case = bench.case(call)
                ended = bench.writer.ask(case)
                _judge(bench, case, call, os.waitstatus_to_exitcode(ended.status))


def _judge(bench: Bench, case: Case, struck: Call, answer: int) -> None:
    found = states(case)
    if struck.name == "close":
        # Its descriptor stays open, and that is all.
        assert answer == LEAKED
    elif answer == WRITTEN:
        assert struck.name not in {"fsync", "write", "fchmod", "fchown", "renameat", "fallocate"}
    else:
        assert answer == REFUSED
    if answer in {WRITTEN, LEAKED}:
        assert found == ["new", "new"]
    elif bench.calls.index(struck) < _first_given(bench.calls):
        assert found == ["old", "absent"]
    assert leftovers(case) == []
    resume(case)


def _first_given(calls: list[Call]) -> int:
    """Up to and with this call, nothing is changed by one that fails."""
    return [call.name for call in calls].index("renameat") + 1

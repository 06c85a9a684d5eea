"""Killing a process at a system call of one's choice, or letting that call fail: by strace.

::

    with writer() as writing:
        with traced(writing.pid, log, ["inject=fsync:error=EIO:when=100"]):
            ended = writing.ask(case)
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import cattrs
import pytest

from tests.topology.traced_writer import BEGIN, CALLS, END, Case, Ended

__all__ = ["Call", "Writer", "calls_of", "need_strace", "traced", "wait_until_attached", "writer"]

_TREE = Path(__file__).parents[2]
_ATTACHED_WITHIN_S = 20.0


@attrs.frozen
class Call:
    """The *number*th call named *name* that a child made, counted from its birth."""

    name: str
    number: int
    arguments: str


@attrs.frozen
class Writer:
    """A running `traced_writer`."""

    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, case: Case) -> Ended:
        """Carry out *case*, and say how it ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(cattrs.unstructure(case)), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, "the writer itself was struck"
        return cattrs.structure(json.loads(answer), Ended)


def need_strace() -> None:
    """Install strace where that is possible; else skip the test, or fail it under CI."""
    if shutil.which("strace") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "strace"]):
            subprocess.run(command, check=False, capture_output=True)
    if shutil.which("strace") is None:
        _give_up("no strace here, and it cannot be installed")


@contextmanager
def writer() -> Generator[Writer]:
    """A `traced_writer`, ready to be asked."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.topology.traced_writer"],
        cwd=_TREE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Writer(process)


@contextmanager
def traced(
    pid: int, log: Path, expressions: Sequence[str], *, calls: Collection[str] = CALLS
) -> Generator[None]:
    """*pid* and the children that it will have are traced, and what strace is told to do is done."""
    told = [word for expression in expressions for word in ("-e", expression)]
    names = ",".join(f"?{name}" for name in calls)
    command = ["strace", "-f", "-s", "200", "-o", str(log), "-e", f"trace={names}", *told]
    strace = subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    with strace:
        wait_until_attached(strace, pid)
        try:
            yield
        finally:
            strace.send_signal(signal.SIGINT)  # lets go of it


def calls_of(log: Path, pid: int) -> list[Call]:
    """The calls that child *pid* made between the marks, in order."""
    counts: dict[str, int] = {}
    calls: list[Call] = []
    is_begun = False
    for line in log.read_text().splitlines():
        if (matched := re.match(rf"{pid} +(\w+)\((.*)", line)) is None:
            continue
        name, arguments = matched.groups()
        counts[name] = counts.get(name, 0) + 1
        if END in arguments:
            return calls
        if is_begun:
            calls.append(Call(name, counts[name], arguments))
        is_begun = is_begun or BEGIN in arguments
    return calls


def wait_until_attached(strace: subprocess.Popen[str], pid: int) -> None:
    """Return once *strace* traces *pid*; else skip the test, or fail it under CI."""
    deadline = time.monotonic() + _ATTACHED_WITHIN_S
    while f"TracerPid:\t{strace.pid}\n" not in Path(f"/proc/{pid}/status").read_text():
        if strace.poll() is not None:
            assert strace.stderr is not None
            _give_up(f"nothing can be traced here: {strace.stderr.read().strip()}")
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _give_up(reason: str) -> None:
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)

"""``python -m benchmarks.path_of_a_push``: which modules and functions one changed line of one file runs.

A folder stands for the device; the server, the agent and ``harmony push-score`` are the real ones, in this
process. A FileScore is pushed, one line of its content is changed, and it is pushed again: of that second
push, every function of ours that is called is noted in the order of its first call, from the command until
its Outcome is shown. CONTRIBUTING.md has the modules, with what each does; a test compares the two.

With ``--write`` the tables there follow the run: a module keeps its words, a new one gets the first sentence
of its own docstring, to be said better by whoever added it.

Counted are functions that have a name in our sources: no bodies of modules and classes, no lambdas, no
comprehensions, nothing that attrs or pydantic have generated.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import sys
import tempfile
import threading
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import CodeType, FrameType

import attrs
from nats.js.errors import KeyNotFoundError

from harmony_agent import config as configuration
from harmony_agent.bus.connection import Bus
from harmony_agent.config import TopologyTable
from harmony_agent.wiring import open_agent
from harmony_control.cli import main as harmony
from harmony_control.store.home import Home
from tests.nats import Bus as Bed
from tests.nats import serving

__all__ = ["PushFailed", "Side", "record_one_push", "write_tables"]

_TREE = Path(__file__).parents[1]
_OURS = tuple(
    str(_TREE / package) + os.sep
    for package in (
        "harmony_core",
        "harmony_scores",
        "harmony_pi_topology",
        "harmony_agent",
        "harmony_control",
    )
)


class PushFailed(Exception):
    """The push that was to be recorded did not end well."""


_is_operator: ContextVar[bool] = ContextVar("_is_operator", default=False)
"""Whether it is the command that runs: true in its thread, its tasks and its threads, and nowhere else."""
_QUIET_S = 2.5
"""Longer than an agent waits, once it is connected, before it looks at its classes."""
_NOW_AND_THEN = frozenset({"harmony_pi_topology/posix/hashing.py"})
"""A file that was written just before it was looked at is hashed once more: that depends on the moment."""


@attrs.frozen
class Side:
    """What ran of one side: functions by module, both in the order of their first calls."""

    functions: Mapping[str, tuple[str, ...]]

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(self.functions)

    @property
    def count(self) -> int:
        """How many functions."""
        return sum(map(len, self.functions.values()))


@attrs.define
class _Recorder:
    """Notes each code object at its first call on each side, in every thread, while it is on."""

    is_on: bool = False
    calls: int = 0
    seen: dict[tuple[bool, CodeType], None] = attrs.field(factory=dict[tuple[bool, CodeType], None])

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(_OURS):
            self.calls += 1
            if self.is_on:
                self.seen.setdefault((_is_operator.get(), frame.f_code))

    @contextmanager
    def installed(self) -> Generator[None]:
        """In this thread, and in every thread that is begun meanwhile."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    async def until_quiet(self) -> None:
        """Return once nothing of ours has been called for that long."""
        before = -1
        while before != self.calls:
            before = self.calls
            await asyncio.sleep(_QUIET_S)

    def side(self, *, operator: bool) -> Side:
        """Return what ran of one side."""
        found: dict[str, list[str]] = {}
        for is_operator, code in self.seen:
            if is_operator is operator and _has_a_name(code):
                module = str(Path(code.co_filename).relative_to(_TREE))
                if module not in _NOW_AND_THEN:
                    found.setdefault(module, []).append(code.co_qualname)
        return Side({module: tuple(functions) for module, functions in found.items()})


def _has_a_name(code: CodeType) -> bool:
    is_function = bool(code.co_flags & inspect.CO_OPTIMIZED)
    return is_function and not code.co_name.startswith("<")


async def record_one_push(directory: Path) -> tuple[Side, Side]:
    """Push a file, change one line of it, and return what the second push ran: the command, and the agent.

    *directory* must be empty; what is made there is left there. Raises `PushFailed`.
    """
    recorder = _Recorder()
    with recorder.installed():
        async with serving(directory, "pi-1") as bus, _agent(bus.home, directory):
            score = directory / "motd.yaml"
            await _push(bus.home, score, "one line\n")
            await _until_inventory_told(bus)
            await recorder.until_quiet()
            recorder.is_on = True
            await _push(bus.home, score, "another line\n")
            recorder.is_on = False
    return recorder.side(operator=True), recorder.side(operator=False)


async def _until_inventory_told(bus: Bed) -> None:
    """Wait until the inventory is reported: it is read in a thread, from a disk that may be slow, and is no
    part of a push."""
    while True:
        with contextlib.suppress(KeyNotFoundError):
            await bus.bucket("inventory").get("pi-1")
            return
        await asyncio.sleep(0.05)


async def _push(home: Home, score: Path, content: str) -> None:
    owner = f'owner: "{os.geteuid()}", group: "{os.getegid()}"'
    spec = f"{{path: /etc/motd, content: {content!r}, {owner}}}"
    await asyncio.to_thread(score.write_text, f"- {{id: motd, kind: FileScore, spec: {spec}}}\n")
    shown = io.StringIO()
    arguments = ["push-score", "pi-1", str(score), "--home", str(home.root)]
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        status = await asyncio.to_thread(_as_operator, arguments)
    if status or "SUCCESS" not in shown.getvalue():
        raise PushFailed(f"harmony push-score ended with {status}: {shown.getvalue()}")


def _as_operator(arguments: list[str]) -> int:
    _is_operator.set(True)
    return harmony(arguments)


@asynccontextmanager
async def _agent(home: Home, directory: Path) -> AsyncGenerator[None]:
    """Run the real agent; its device is a folder, and its heartbeats are so rare that none disturbs."""
    device = directory / "device"
    (device / "etc").mkdir(parents=True)
    config = configuration.load(home.agent_toml("pi-1")).model_copy(
        update={
            "state_directory": directory / "state",
            "runtime_directory": directory / "run",
            "heartbeat_s": 600.0,
            "topology": TopologyTable(root=device),
        }
    )
    async with open_agent(config, Bus.of(config)) as (agent, _):
        running = asyncio.create_task(agent.run())
        try:
            yield
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


def write_tables(page: Path, sides: Sequence[Side]) -> None:
    """Put the modules of *sides* into the tables of *page*, in order, with the words that it has for each."""
    head, *parts = re.split(r"^(?=The (?:command|agent), )", page.read_text(), flags=re.MULTILINE)
    for part, side in zip(parts, sides, strict=True):
        rows = list(_ROW.finditer(part))
        words = {row["module"]: row["words"] for row in rows}
        table = "".join(
            f"| `{module}` | {words.get(module) or _first_sentence(module)} |\n"
            for module in side.modules
        )
        head += part[: rows[0].start()] + table + part[rows[-1].end() :]
    page.write_text(head)


_ROW = re.compile(r"^\| `(?P<module>[\w/]+\.py)` \| (?P<words>.*) \|\n", re.MULTILINE)


def _first_sentence(module: str) -> str:
    said = ast.get_docstring(ast.parse((_TREE / module).read_text())) or ""
    return " ".join(said.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")


def main() -> None:
    """Print each module that ran, in order; with --functions, its functions too."""
    parser = argparse.ArgumentParser(description="which of our modules one changed line runs")
    parser.add_argument("--functions", action="store_true", help="name their functions, too")
    parser.add_argument("--write", action="store_true", help="bring CONTRIBUTING.md up to date")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="harmony-path-") as directory:
        sides = asyncio.run(record_one_push(Path(directory)))
    if options.write:
        write_tables(_TREE / "CONTRIBUTING.md", sides)
    for name, side in zip(("harmony push-score", "the agent"), sides, strict=True):
        print(f"{name}: {len(side.modules)} modules, {side.count} functions")
        for module, functions in side.functions.items():
            print(f"    {module}  {len(functions)}")
            if options.functions:
                print(f"        {', '.join(functions)}")


if __name__ == "__main__":
    main()

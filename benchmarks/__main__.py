"""``python -m benchmarks [LINES…]``: measures what was asked for, and says how it compares.

Nothing given is everything. ``push`` is every line whose id begins so. The exit code is 0 whether goals are
reached or not: a busy machine is no defect.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import attrs

from .assets import ASSET_LINES, assets
from .bed import Bed, making
from .commands import COMMANDS, commands
from .compose import COMPOSE, compose
from .containers import CONTAINERS, containers
from .drift import DRIFT, drift
from .figures import Line, Unmeasurable
from .fleet_size import FLEET_SIZE, fleet_size
from .flushes import FLUSHES, flushes
from .goals import unmeasured
from .lasting import GENERATIONS, generations
from .layers import LAYERS, layers
from .living import IDLE, MEMORY, idle, memory
from .loading import LOADING, loading
from .one_flush import ONE_FLUSH, one_flush
from .page import PAGE, page_lines
from .passes import PASSES, WRITES, passes, writes
from .pull import PULL, pull
from .push import HUNDRED, ONE, hundred, one
from .repairs import REPAIRS, repairs
from .report import HEADING, row, to_json
from .rounds import Rounds
from .secured import SECURED, secured
from .server_size import SERVER_SIZE, server_size
from .start import STARTING, starting
from .units import UNITS, units

_ROOT = Path(__file__).parent.parent
_PACKAGES = (
    "harmony_core",
    "harmony_scores",
    "harmony_pi_topology",
    "harmony_agent",
    "harmony_control",
    "benchmarks",
)


@attrs.frozen
class Group:
    """Lines that are measured together, on a bed of their own."""

    ids: Sequence[str]
    measure: Callable[[Bed, Rounds], AsyncIterator[Line]]


GROUPS = (
    Group(ONE, one),
    Group(HUNDRED, hundred),
    Group(STARTING, starting),
    Group(MEMORY, memory),
    Group(LOADING, loading),
    Group(CONTAINERS, containers),
    Group(COMPOSE, compose),
    Group(PULL, pull),
    Group(ASSET_LINES, assets),
    Group(IDLE, idle),
    Group(PASSES, passes),
    Group(WRITES, writes),
    Group(DRIFT, drift),
    Group(UNITS, units),
    Group(REPAIRS, repairs),
    Group(GENERATIONS, generations),
    Group(COMMANDS, commands),
    Group(FLUSHES, flushes),
    Group(LAYERS, layers),
    Group(ONE_FLUSH, one_flush),
    Group(SERVER_SIZE, server_size),
    Group(SECURED, secured),
    Group(FLEET_SIZE, fleet_size),
    Group(PAGE, page_lines),
)


async def measured(group: Group, rounds: Rounds) -> AsyncIterator[Line]:
    """Every line of *group*; where it cannot be measured here, why."""
    told: set[str] = set()
    try:
        async with making() as bed:
            async for line in group.measure(bed, rounds):
                told.add(line.id)
                yield line
    except Unmeasurable as why:
        for line in unmeasured([each for each in group.ids if each not in told], str(why)):
            yield line


def compile_all() -> None:
    """Compile everything of ours, as installing does: what is measured are programs, not their compiler."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for package in _PACKAGES:
        compileall.compile_dir(_ROOT / package, quiet=1)


async def _told(group: Group, rounds: Rounds, wanted: tuple[str, ...]) -> list[Line]:
    """Return the lines of *group* that are *wanted*, and print each as soon as it is known."""
    lines: list[Line] = []
    async for line in measured(group, rounds):
        if line.id.startswith(wanted):
            lines.append(line)
            print(row(line), flush=True)
    return lines


def run(options: argparse.Namespace) -> list[Line]:
    """Measure what is asked for."""
    rounds = Rounds(runs=options.runs, quick=options.quick)
    wanted = tuple(options.lines) or ("",)
    lines: list[Line] = []
    print(HEADING)
    for group in GROUPS:
        if any(each.startswith(wanted) for each in group.ids):
            # A loop each: threads that one leaves behind may be in the network of a Pi in a box.
            lines += asyncio.run(_told(group, rounds, wanted))
    return lines


def main() -> int:
    """Measure what the command line names. Return 0, or 2 when no line has such a name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("lines", nargs="*", metavar="LINE", help="the beginnings of lines' ids")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same as JSON")
    parser.add_argument("--runs", type=int, metavar="N", help="do everything N times")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the runs, 10 s for a minute"
    )
    options = parser.parse_args()
    compile_all()
    lines = run(options)
    if options.json is not None:
        options.json.write_text(to_json(lines, sys.argv[1:]))
    short = sum(line.verdict == "short" for line in lines)
    print(f"{len(lines)} lines, {short} short of their goal")
    return 0 if lines else 2


if __name__ == "__main__":
    sys.exit(main())

"""``push.*``: from the bus to the device and back, with one Score and with a hundred."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import attrs

from harmony_core.wire.manifest import SerializedScore

from .bed import Bed, Program, file_scores
from .figures import Figure, Line, Unmeasurable, median, p99
from .goals import line, unmeasured
from .peers import PEERS, Prepared
from .processes import cpu_ms
from .rounds import Rounds

__all__ = ["HUNDRED", "ONE", "hundred", "one"]

ONE = ("push.noop.p50", "push.noop.p99", "push.file_changed.p50")
_BESIDE = ("first", "again", "again.cpu")
HUNDRED = (
    "push.100_files.first",
    "push.100_files.again",
    *(f"push.100_files.{each}.{peer}" for peer in PEERS for each in _BESIDE),
)

_PAUSE_S = 0.005
"""After each push: ours makes its last commit after the report, and is not to be hurried through it."""
_WARM_UP = 5
_KIB = "x" * 1_000
_WHO_FLUSHES = "ours flushes each file before it says so, the peer none"


async def one(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """One Score, that is so already; and one whose file has to be written."""
    await bed.agent("one")
    await bed.floor("f1", "one-floor")
    same = file_scores("/etc/app", 1, "the same each time")
    ours, floor = await _in_turn(bed, rounds.of(400), ("one", "one-floor"), lambda: same)
    assert bed.statuses("one") == {"NOOP"}
    yield line("push.noop.p50", median(ours, "ms"), median(floor, "ms"))
    yield line("push.noop.p99", p99(ours, "ms"), p99(floor, "ms"))

    def other() -> list[SerializedScore]:
        return file_scores("/etc/app", 1, secrets.token_hex(500))

    await bed.floor("f1", "write-floor", root=str(bed.root / "write-floor.device"))
    ours, floor = await _in_turn(bed, rounds.of(200), ("one", "write-floor"), other)
    assert bed.statuses("one") == {"SUCCESS"}
    yield line("push.file_changed.p50", median(ours, "ms"), median(floor, "ms"))


async def _in_turn(
    bed: Bed, count: int, agents: tuple[str, str], wanted: Callable[[], list[SerializedScore]]
) -> tuple[list[float], list[float]]:
    """Push what is *wanted* to both, in turn, *count* times."""
    took: dict[str, list[float]] = {agent: [] for agent in agents}
    for number in range(count + _WARM_UP):
        for agent in agents:
            took_ms = await bed.push(agent, wanted())
            if number >= _WARM_UP:
                took[agent].append(took_ms)
            await asyncio.sleep(_PAUSE_S)
    return took[agents[0]], took[agents[1]]


@attrs.define
class _Hundred:
    """What one round after the other took, in milliseconds."""

    first: list[float] = attrs.field(factory=list[float])
    again: list[float] = attrs.field(factory=list[float])
    again_cpu: list[float] = attrs.field(factory=list[float])
    f1l: list[float] = attrs.field(factory=list[float])
    f5: list[float] = attrs.field(factory=list[float])
    f6: list[float] = attrs.field(factory=list[float])


@attrs.frozen
class _Programs:
    ours: Program
    f5: Program
    f6: Program


async def hundred(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Push a hundred files of 1 KiB, each a Score of its own: measure when they are made, and when they are
    found in order."""
    scores = file_scores("/etc/app", 100, _KIB)
    peers = await asyncio.to_thread(_peers, bed.root, scores)
    programs = await _programs(bed, scores)
    took = _Hundred()
    for number in range(rounds.of(30) + 1):
        into = took if number else _Hundred()
        await _round(bed, programs, scores, into)
        for peer in peers:
            if number < rounds.of(peer.rounds):
                await asyncio.to_thread(peer.run)
    f1l, f5, f6 = (median(each, "ms") for each in (took.f1l, took.f5, took.f6))
    ours = [median(each, "ms") for each in (took.first, took.again, took.again_cpu)]
    yield line("push.100_files.first", ours[0], f1l + f5 + f6)
    yield line("push.100_files.again", ours[1], f1l + f5)
    for peer in peers:
        for each in peer.lines(ours):
            yield each


@attrs.define
class _Peer:
    """A peer, and what it took; or why it cannot be had."""

    name: str
    rounds: int
    prepared: Prepared | None = None
    why: str = ""
    took: _Hundred = attrs.field(factory=_Hundred)

    def run(self) -> None:
        """One round. Blocks."""
        if self.prepared is None:
            return
        try:
            self.took.first.append(self.prepared.run_first().wall_ms)
            again = self.prepared.run_again()
        except Unmeasurable as why:
            self.prepared, self.why = None, str(why)
        else:
            self.took.again.append(again.wall_ms)
            self.took.again_cpu.append(again.cpu_ms)

    def lines(self, ours: Sequence[Figure]) -> list[Line]:
        """Each of *ours* beside it."""
        names = [f"push.100_files.{each}.{self.name}" for each in _BESIDE]
        if self.prepared is None:
            return unmeasured(names, self.why)
        theirs = (self.took.first, self.took.again, self.took.again_cpu)
        return [
            line(
                name,
                figure,
                median(samples, "ms"),
                note=_WHO_FLUSHES if samples is self.took.first else "",
            )
            for name, figure, samples in zip(names, ours, theirs, strict=True)
        ]


def _peers(root: Path, scores: Sequence[SerializedScore]) -> list[_Peer]:
    contents = {Path(str(s.spec["path"])).name: str(s.spec["content"]).encode() for s in scores}
    peers: list[_Peer] = []
    for name, peer in PEERS.items():
        try:
            peers.append(_Peer(name, peer.rounds, peer.prepare(root, contents)))
        except Unmeasurable as why:
            peers.append(_Peer(name, peer.rounds, why=str(why)))
    return peers


async def _programs(bed: Bed, scores: Sequence[SerializedScore]) -> _Programs:
    await bed.floor("f1", "f1l")
    device = bed.root / "f5.device"
    for each in scores:
        path = device / str(each.spec["path"])[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(each.spec["content"]))
    envelope = bed.root / "f5.envelope"
    envelope.write_bytes(bed.sealed("f5", scores)[1])
    return _Programs(
        await bed.agent("hundred"),
        await bed.floor("f5", "f5", root=str(device), envelope=str(envelope)),
        await bed.floor("f6", "f6"),
    )


async def _round(
    bed: Bed, programs: _Programs, scores: Sequence[SerializedScore], into: _Hundred
) -> None:
    await bed.push("hundred", [])
    await bed.until("hundred", lambda state: not state["scores"])
    await asyncio.sleep(_PAUSE_S * 4)
    into.first.append(await bed.push("hundred", scores))
    assert bed.statuses("hundred") == {"SUCCESS"}
    into.f6.append(await programs.f6.round_ms())
    for _ in range(2):
        into.f1l.append(await bed.push("f1l", scores))
        into.f5.append(await programs.f5.round_ms())
        before_ms = cpu_ms(programs.ours.pid)
        into.again.append(await bed.push("hundred", scores))
        await asyncio.sleep(_PAUSE_S * 10)
        into.again_cpu.append(cpu_ms(programs.ours.pid) - before_ms)
    assert bed.statuses("hundred") == {"NOOP"}

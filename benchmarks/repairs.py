"""``drift.*.*``: from a deed by hand on a Pi in a box until it is put right, for each kind of deed.

When is told by the device itself: files are read, systemd and podman are asked for their own times, and
`ip monitor` says when an address went and came. Nothing is touched often enough to meet growing patience.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from harmony_control.push.entries import Pushable
from harmony_core.resources import Ethernet, Ipv4
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, FileScore, NetworkConfigScore, SystemdServiceScore
from tests.fleet.ground import AGENT, pushed, statuses, until
from tests.topology.box_network import WIRE, cabled

from .bed import Bed
from .figures import Line, Unmeasurable, median
from .goals import line
from .pi import Pi, pi_in_a_box
from .rounds import Rounds

__all__ = ["REPAIRS", "absences_ms", "repairs", "restarted_ms"]

_ON_FILES: Mapping[str, Callable[[Path], object]] = {
    "drift.file.edited": lambda path: path.write_bytes(b"by hand"),
    "drift.file.deleted": Path.unlink,
    "drift.file.chmod": lambda path: path.chmod(0o600),
}
_ON_CONTAINERS: Mapping[str, Sequence[str]] = {
    "drift.container.stopped": ("podman", "stop", "-t", "0"),
    "drift.container.removed": ("podman", "rm", "-f", "-t", "0"),
}
REPAIRS = (
    *_ON_FILES,
    "drift.unit.stopped",
    "drift.unit.edited",
    *_ON_CONTAINERS,
    "drift.address.dropped",
)
_WITHIN_S = 20.0
_WATCHED_S = 2.0
_BETWEEN_S = 3.0
_ADDRESS = "10.79.0.2/24"
_HAPPENED = re.compile(r"\[(\S+)\] (Deleted )?\d+: \S+ +inet (\S+)")
_NO_EVENT = "podman tells of none that died and was started"


async def repairs(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """One deed after the other, on one Pi, each a few times."""
    count = rounds.of(8)
    async with pi_in_a_box(bed.root) as pi:
        for name, deed in _ON_FILES.items():
            yield line(name, median(await _files(pi, name, deed, count), "ms"))
        yield line("drift.unit.stopped", median(await _units_stopped(pi, count), "ms"))
        yield line("drift.unit.edited", median(await _units_edited(pi, count), "ms"))
        # In this thread: those that were there before the Pi are not in its network.
        image = pi.boxes.registry.push_busybox("repairs", "1", command=("sleep", "86399"))
        for name, command in _ON_CONTAINERS.items():
            yield line(name, median(await _containers(pi, image, command, count), "ms"))
        yield line(REPAIRS[-1], median(await _addresses(pi, bed.root / "addresses"), "ms"))


async def _files(pi: Pi, name: str, deed: Callable[[Path], object], count: int) -> Sequence[float]:
    paths = [f"/etc/{name}/{number}" for number in range(count)]
    scores = {
        f"file-{n}": FileScore(path=path, content="as wanted") for n, path in enumerate(paths)
    }
    await _in_order(pi, scores)
    return [await _put_right_ms(pi.box.root / path[1:], deed) for path in paths]


async def _put_right_ms(path: Path, deed: Callable[[Path], object]) -> float:
    """From the *deed* until all of the file is as it was: seen from outside, on the disk."""

    def facts() -> tuple[bytes, int] | None:
        try:
            return path.read_bytes(), path.stat().st_mode
        except FileNotFoundError:
            return None

    def wait() -> float:
        wanted = facts()
        deed(path)
        began = time.perf_counter()
        while facts() != wanted:
            if time.perf_counter() - began > _WITHIN_S:
                raise Unmeasurable(f"{path.name} was not put right within {_WITHIN_S:g} s")
            time.sleep(0.0001)
        return (time.perf_counter() - began) * 1_000

    return await asyncio.to_thread(wait)


async def _units_stopped(pi: Pi, count: int) -> Sequence[float]:
    """By systemd's own clock: from when the unit was inactive until it was active."""
    names = await _units(pi, count)
    took: list[float] = []
    for name in names:
        await asyncio.to_thread(pi.box.run, ["systemctl", "stop", name])
        await asyncio.sleep(_BETWEEN_S)
        found = pi.host.unit(
            name, "InactiveEnterTimestampMonotonic", "ActiveEnterTimestampMonotonic"
        )
        stopped_us, started_us = (int(value) for _, value in sorted(found.items(), reverse=True))
        if started_us < stopped_us:
            raise Unmeasurable(f"{name} was not started again within {_BETWEEN_S:g} s")
        took.append((started_us - stopped_us) / 1_000)
    return took


async def _units_edited(pi: Pi, count: int) -> Sequence[float]:
    took: list[float] = []
    for name in await _units(pi, count):
        path = pi.box.root / "etc/systemd/system" / name
        took.append(await _put_right_ms(path, _edit))
        await asyncio.sleep(
            _BETWEEN_S
        )  # systemd reads all files anew, and answers nobody meanwhile
    return took


def _edit(path: Path) -> None:
    with path.open("a") as file:
        file.write("# by hand\n")


async def _units(pi: Pi, count: int) -> Sequence[str]:
    names = [f"sleeper-{number}.service" for number in range(count)]
    run = ("/usr/bin/sleep", "infinity")
    await _in_order(
        pi, {name[:-8]: SystemdServiceScore(name=name, exec_start=run) for name in names}
    )
    return names


async def _containers(pi: Pi, image: str, command: Sequence[str], count: int) -> Sequence[float]:
    """By podman's own events: from the word that it has died until the word that it was started."""
    names = [f"box-{number}" for number in range(count)]
    await _in_order(
        pi, {name: ContainerScore(name=name, image=image, stop_timeout_s=0) for name in names}
    )
    took: list[float] = []
    for name in names:
        since = str(int(time.time()))
        # It is back so soon that podman may complain of not being able to clean up.
        await asyncio.to_thread(pi.box.run, [*command, name], check=False)
        await asyncio.sleep(_BETWEEN_S)
        asked = ["--stream=false", "--since", since, "--filter", f"container={name}"]
        told = pi.box.text("podman", "events", *asked, "--format", "json")
        took.append(restarted_ms([json.loads(each) for each in told.splitlines()]))
    return took


def restarted_ms(events: Sequence[Mapping[str, object]]) -> float:
    at = {str(event["Status"]): int(str(event["timeNano"])) for event in reversed(events)}
    if not {"died", "start"} <= at.keys():
        raise Unmeasurable(_NO_EVENT)
    return (at["start"] - at["died"]) / 1_000_000


async def _addresses(pi: Pi, log: Path) -> Sequence[float]:
    """By the kernel's own word, of a second cable that NetworkManager sees to."""
    await asyncio.to_thread(cabled, pi.box, pi.boxes.name)
    # Who looks after a network is asked once.
    await asyncio.to_thread(pi.box.run, ["systemctl", "restart", AGENT])
    await until(pi.device, lambda state: state.capabilities["NetworkConfigurator"].offered)
    score = NetworkConfigScore(
        name="office",
        link=Ethernet(interface=WIRE),
        ipv4=Ipv4(method="manual", addresses=(_ADDRESS,)),
    )
    await _in_order(pi, {"net": score})
    with log.open("wb") as file:
        command = ["ip", "-tshort", "monitor", "address", "dev", WIRE]
        async with pi.running(command, stdout=file):
            for _ in range(2):
                await asyncio.sleep(_WATCHED_S)
                drop = ["ip", "address", "del", _ADDRESS, "dev", WIRE]
                await asyncio.to_thread(pi.box.run, drop)
                await asyncio.sleep(_BETWEEN_S)
    return absences_ms(await asyncio.to_thread(log.read_text))


def absences_ms(told: str) -> Sequence[float]:
    took: list[float] = []
    went: datetime | None = None
    for at, deleted, address in _HAPPENED.findall(told):
        if address == _ADDRESS and deleted:
            went = went or datetime.fromisoformat(at)
        elif address == _ADDRESS and went is not None:
            took.append((datetime.fromisoformat(at) - went).total_seconds() * 1_000)
            went = None
    if not took:
        raise Unmeasurable(f"{_ADDRESS} did not come back within {_BETWEEN_S:g} s")
    return took


async def _in_order(pi: Pi, scores: Mapping[str, Pushable[PiTopology]]) -> None:
    """Nothing but *scores*, none of them touched by anybody yet, and all of it watched."""
    known = await pi.device.state()
    if known is not None and known.scores:
        await pi.device.remove(*known.scores)
    state, _ = await pushed(pi.device, scores)
    if set(statuses(state).values()) != {"SUCCESS"}:
        raise Unmeasurable(f"the Pi says {statuses(state)}")
    await asyncio.sleep(_WATCHED_S)

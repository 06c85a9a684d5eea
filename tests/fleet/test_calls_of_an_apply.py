"""kill -9, and errors, at the system calls of a whole apply: files, a unit, a container, a job and a network.

The agent as it is installed, over real systemd, podman and NetworkManager, told by a real server. Each time
it is pushed another specification of everything, and struck on the way at one of the calls that it makes: it
is killed there, or the call answers with an error. Then the device's own tools say what there is, and how
often it was done.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import attrs
import pytest

from harmony_control.device import Device
from harmony_core.outcome import Failure, Noop, Success
from harmony_core.resources import Ethernet, Ipv4
from harmony_core.score import Score
from harmony_core.wire.actual_state import ActualState
from harmony_pi_topology import PiTopology
from harmony_scores import (
    ContainerScore,
    DirectoryScore,
    FileScore,
    NetworkConfigScore,
    ShellJobScore,
    SystemdServiceScore,
)
from tests.box import Bed, Box
from tests.fleet.ground import AGENT, ControlPlane, Host, allowed, in_shell, until
from tests.soak import runs, tell
from tests.topology.box_network import WIRE, BoxNetwork, cabled
from tests.topology.tracing import need_strace, traced

Pi: TypeAlias = Device[PiTopology]

STARTS, JOBS = "/var/log/struck-starts", "/var/log/struck-jobs"
SLEEP = "/usr/bin/sleep 86398"
START = ("/bin/sh", "-c", f"echo $RUN >> {STARTS}; exec {SLEEP}")
ADDRESSES = ("10.79.0.2/24", "10.79.0.3/24")
MODES = ("0750", "0711")
KILLED = "KILL"
STRUCK: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(("write", "pwrite64", "fsync", "fdatasync"), (KILLED, "ENOSPC", "EIO")),
    **dict.fromkeys(("rename", "renameat", "linkat", "mkdir"), (KILLED, "EROFS", "ENOSPC")),
    **dict.fromkeys(("unlink", "rmdir", "fchmod", "fchown"), (KILLED, "EROFS", "EIO")),
    **dict.fromkeys(("openat", "openat2", "newfstatat"), (KILLED, "EMFILE", "EIO")),
    **dict.fromkeys(("socket", "pidfd_open"), (KILLED, "EMFILE")),
    "connect": (KILLED, "ECONNREFUSED", "EAGAIN"),
    **dict.fromkeys(("sendmsg", "sendto"), (KILLED, "ENOBUFS", "EPIPE")),
    **dict.fromkeys(("recvmsg", "recvfrom"), (KILLED, "ENOMEM", "ECONNRESET")),
}
"""What becomes of each call: the agent is killed at it, or it answers so."""
_MISSED_MOST = 0.25
"""So many of the strikes may have hit nothing, or those that are told were not made."""
STATED = 240
"""Of some thousand calls of an apply, and what may become of each: spread over all."""


@attrs.frozen
class Wanted:
    """One Score of each kind, all of them others than in the run before."""

    run: int
    image: str

    @property
    def scores(self) -> dict[str, Score[PiTopology]]:
        environment = {"RUN": str(self.run)}
        return {
            "file": FileScore(path="/srv/struck/file", content=f"{self.run}\n"),
            "directory": DirectoryScore.model_validate(
                {"path": "/srv/struck-too", "mode": MODES[self.run % 2]}
            ),
            "unit": SystemdServiceScore(
                name="struck.service", exec_start=START, environment=environment, settle_s=0.2
            ),
            "container": ContainerScore(
                name="struck",
                image=self.image,
                command=in_shell("sleep 86398"),
                environment=environment,
                settle_s=0.2,
                stop_timeout_s=1,
            ),
            "job": ShellJobScore(
                name="struck", script=f"echo {self.run} >> {JOBS}", privileged=True
            ),
            "net": NetworkConfigScore(
                name="office",
                link=Ethernet(interface=WIRE),
                ipv4=Ipv4(method="manual", addresses=(ADDRESSES[self.run % 2],)),
                confirm_within_s=10,
            ),
        }


@attrs.frozen
class Strike:
    """At the *number*th call named *name* of any one thread, *what* happens."""

    name: str
    number: int
    what: str

    @property
    def expression(self) -> str:
        what = "signal=KILL" if self.what == KILLED else f"error={self.what}"
        return f"inject={self.name}:{what}:when={self.number}"


@attrs.define
class Tally:
    """What came of the strikes."""

    killed: int = 0
    failed: int = 0
    missed: int = 0
    """Fewer such calls were made this time."""
    interrupted: int = 0
    """Jobs of which nobody knew, after a kill, whether they were begun."""


@pytest.fixture(scope="module")
def pi(
    boot: Callable[[], Box], bed: Bed, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Box:
    need_strace()
    box = boot()
    cabled(box, bed.name)
    network = BoxNetwork(box, tmp_path_factory.mktemp("secrets"))
    asyncio.run(network.make_strange("start", WIRE, "10.79.0.9/24"))
    plane.enrol(box, drop_in="RestartSec=100ms")
    return box


@pytest.mark.security
@pytest.mark.timeout(7200)
async def test_struck_at_any_call_of_an_apply_the_end_is_the_same_and_nothing_is_done_twice(
    device: Pi, host: Host, bed: Bed, tmp_path: Path
) -> None:
    image = bed.registry.push_busybox("web", "1")
    await allowed(host.box, device, "any")
    numbers = itertools.count(1)
    await applied(device, Wanted(next(numbers), image))
    log = tmp_path / "log"
    with traced(host_pid(host), log, [], calls=STRUCK):
        await applied(device, Wanted(next(numbers), image))
    tally = Tally()
    for strike in spread(calls_of(log), runs(STATED, part=120)):
        wish = Wanted(next(numbers), image)
        print(f"run {wish.run}: {strike}", flush=True)
        with traced(host_pid(host), log, [strike.expression], calls=[strike.name]):
            told = await applied(device, wish)
        text = log.read_text()
        if "+++ killed by SIGKILL" in text:
            tally.killed += 1
        elif "(INJECTED)" in text:
            tally.failed += 1
        else:
            tally.missed += 1
        is_in_words(told)
        tally.interrupted += is_as_wished(host, wish, told[-1])
    tell(
        "whole apply",
        f"{tally.killed} kills, {tally.failed} failing calls ({tally.missed} were not made again): "
        f"0 torn, 0 double; {tally.interrupted} jobs cut short and told so",
    )
    assert tally.killed
    assert tally.failed
    # Another apply makes other calls, so that the last of a kind may not come again.
    assert tally.missed <= _MISSED_MOST * (tally.killed + tally.failed + tally.missed)


async def applied(device: Pi, wish: Wanted) -> list[ActualState]:
    """Push *wish* and wait until all is in order, or a job was cut short: every state on the way."""
    seen: list[ActualState] = []
    pushed = await device.put(wish.scores)

    def is_done(state: ActualState) -> bool:
        seen.append(state)
        return (
            state.observed_generation == pushed.generation
            and state.scores.keys() == wish.scores.keys()
            and all(
                page.observed_generation == pushed.generation
                and (isinstance(page.outcome, Success | Noop) or is_interrupted(state, name))
                for name, page in state.scores.items()
            )
        )

    await until(device, is_done, within_s=120)
    return seen


def is_interrupted(state: ActualState, score: str) -> bool:
    outcome = state.scores[score].outcome
    return isinstance(outcome, Failure) and outcome.error.code == "JobInterrupted"


def is_in_words(told: Sequence[ActualState]) -> None:
    """Whatever failed was told by what it is and what to do."""
    for state in told:
        for name, page in state.scores.items():
            if isinstance(page.outcome, Failure):
                error = page.outcome.error
                assert error.code != "InternalError", (name, error.message)
                assert ";" in error.message, (name, error.code, error.message)


def is_as_wished(host: Host, wish: Wanted, state: ActualState) -> bool:
    """Assert that the device is as *wish* has it, done once. Return whether its job was cut short."""
    box = host.box
    assert box.read("/srv/struck/file") == f"{wish.run}\n".encode()
    assert [path.name for path in (box.root / "srv/struck").iterdir()] == ["file"]
    mode = (box.root / "srv/struck-too").stat().st_mode
    assert f"{mode & 0o7777:04o}" == MODES[wish.run % 2]
    found = host.unit("struck.service", "ActiveState", "MainPID")
    assert found["ActiveState"] == "active"
    environment = box.read(f"/proc/{found['MainPID']}/environ").split(b"\0")
    assert f"RUN={wish.run}".encode() in environment
    assert box.text("pgrep", "-c", "-fx", SLEEP) == "1"
    assert host.containers() == ["struck"]
    container = host.container("struck")
    assert container is not None
    assert container["State"]["Status"] == "running"
    assert f"RUN={wish.run}" in container["Config"]["Env"]
    assert box.text("pgrep", "-c", "-x", "conmon") == "1"
    addresses = box.text("ip", "-o", "-4", "address", "show", "dev", WIRE)
    assert re.findall(r"inet (\S+)", addresses) == [ADDRESSES[wish.run % 2]]
    _is_done_once(host, wish)
    ran = box.read(JOBS).decode().split().count(str(wish.run))
    if is_interrupted(state, "job"):
        assert ran <= 1
        return True
    assert ran == 1
    return False


def _is_done_once(host: Host, wish: Wanted) -> None:
    """But a unit that was started, and not noted as started before the kill, while systemd has read files
    since: of that nobody knows what it runs, so it is restarted once, and that is said."""
    again = sum(
        "struck.service restarted: it is not known what it was started from" in line
        for line in host.box.journal(AGENT).splitlines()
    )
    starts = Counter(host.box.read(STARTS).decode().split())
    assert 1 <= starts[str(wish.run)] <= 1 + again, starts
    told = host.box.text(
        *("podman", "events", "--stream=false", "--filter", "type=container"),
        *("--format", "{{.Status}} {{.Name}}"),
    )
    # Each is made under another name, as what takes the place of one that may be there.
    done = Counter(each.removesuffix(".harmony-successor") for each in told.splitlines())
    assert (done["create struck"], done["start struck"]) == (wish.run, wish.run)


def host_pid(host: Host) -> int:
    """The agent's process, as this machine numbers it."""
    inside, namespace = host.agent_pid(), Path(f"/proc/{host.box.pid}/ns/pid").readlink()
    for path in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            numbers = re.search(r"NSpid:\t(.*)", path.read_text())
            if numbers is None or int(numbers[1].split()[-1]) != inside:
                continue
            if (path.parent / "ns/pid").readlink() == namespace:
                return int(path.parent.name)
    raise AssertionError("no agent runs in the box")


def calls_of(log: Path) -> list[Strike]:
    """Return what may be struck of what was traced."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for line in log.read_text().splitlines():
        if matched := re.match(r"(\d+) +(\w+)\(", line):
            counts[matched[2]][matched[1]] += 1
    return [
        Strike(name, number, what)
        for name, threads in sorted(counts.items())
        for number in range(1, max(threads.values()) + 1)
        for what in STRUCK[name]
    ]


def spread(strikes: Sequence[Strike], count: int) -> list[Strike]:
    """Return *count* of them: as many of each call and end as of any other, as far as there are."""
    kinds: defaultdict[tuple[str, str], list[Strike]] = defaultdict(list)
    for each in strikes:
        kinds[each.name, each.what].append(each)
    share = -(-count // len(kinds))
    chosen = (each[len(each) // 3 :: -(-len(each) // share)] + each for each in kinds.values())
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*chosen))
    ordered = list(dict.fromkeys(each for each in in_turn if each is not None))
    if count >= len(kinds):
        return ordered[:count]
    # Of few, not all of the same kind of call, nor all with the same end.
    ends: defaultdict[str, list[Strike]] = defaultdict(list)
    for each in ordered[: len(kinds)]:
        ends[each.what].append(each)
    of_each = list(ends.values())
    found = [of_each[n % len(of_each)] for n in range(count)]
    return [each[len(each) * n // count] for n, each in enumerate(found)]

"""What the tests of a whole fleet stand on: the `harmony` command and its server, and Pis under systemd.

Nothing here is a stand-in. The server is the one that a person starts, devices are enrolled as a person
enrols them, and what is true on a device is read from the device itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from harmony_control.device import Device
from harmony_control.enrol import add_agent
from harmony_control.push.entries import Pushable
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_core.outcome import Failure
from harmony_core.wire.actual_state import ActualState
from harmony_pi_topology import PiTopology
from tests import preloaded
from tests.box import Box

__all__ = [
    "AGENT",
    "SERVE",
    "TREE",
    "URL",
    "ControlPlane",
    "Host",
    "Said",
    "allowed",
    "code_of",
    "heard",
    "heard_again",
    "in_shell",
    "pushed",
    "statuses",
    "until",
]

AGENT = "harmony-agent.service"
TREE = Path(__file__).parents[2]
LISTEN = "0.0.0.0:4222"
URL = "tls://10.77.0.1:4222"
SERVE = "httpd -f -p 80 -h /www"
_STOP_TIMEOUT_S = 20

Pi = Device[PiTopology]


@attrs.frozen
class Said:
    """What a command said, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        """Standard output, of a command with --json."""
        return [json.loads(line) for line in self.out.splitlines()]


class ControlPlane:
    """An operator's home, the `harmony` command, and its server, which every box can reach."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root / "home")
        operator_key.create(self.home)
        self._server: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """`harmony server`, until it says that it runs."""
        self._server = subprocess.Popen(
            # Not to be left behind by a test run that was killed.
            [
                *("setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "harmony_control.cli"),
                *self._with_home("server", "--listen", LISTEN),
            ],
            cwd=TREE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout is not None
        said = self._server.stdout.readline()
        assert "running at" in said, said

    def stop(self) -> None:
        """As systemd would stop it. Idempotent."""
        if self._server is not None:
            self._server.terminate()
            self._server.communicate(timeout=_STOP_TIMEOUT_S)
            self._server = None

    def enrol(self, box: Box, *, drop_in: str = "") -> None:
        """Let *box* in, carry its agent.toml there, and have systemd start the agent, now and at boot.

        *drop_in* changes its service.
        """
        path = add_agent(self.home, box.name, url=URL)
        box.write(
            "/etc/harmony/agent.toml",
            f"heartbeat_s = 1.0\n{path.read_text()}",
            mode=0o600,
        )
        box.write(f"/etc/systemd/system/{AGENT}.d/test.conf", f"[Service]\n{drop_in}\n")
        box.run(["systemctl", "daemon-reload"])
        started = box.run(["systemctl", "enable", "--now", AGENT], check=False)
        assert started.returncode == 0, f"{started.stderr.decode()}\n{box.journal(AGENT)[-8000:]}"

    async def harmony(self, *arguments: str, stdin: str = "", **environment: str) -> Said:
        """The command, as a user runs it."""
        ended = await preloaded.run(
            self._with_home(*arguments), env={**os.environ, **environment}, cwd=TREE, stdin=stdin
        )
        assert "Traceback" not in ended.err, ended.err
        return Said(ended.status, ended.out, ended.err)

    def _with_home(self, name: str, *arguments: str) -> list[str]:
        return [name, "--home", str(self.home.root), *arguments]


@attrs.frozen
class Host:
    """What is true in a box, by its own tools and not by anything of ours."""

    box: Box

    def file(self, path: str) -> tuple[int, int, int] | None:
        """Inode, and the times of the last change of content and of anything; None for no file."""
        try:
            found = (self.box.root / path.lstrip("/")).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_ctime_ns

    def sha256(self, path: str) -> str:
        return hashlib.sha256(self.box.read(path)).hexdigest()

    def unit(self, name: str, *properties: str) -> dict[str, str]:
        """What systemd says of a unit."""
        wanted = ",".join(
            properties or ("ActiveState", "InvocationID", "NRestarts", "FragmentPath")
        )
        lines = self.box.text("systemctl", "show", "-p", wanted, "--", name).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def units(self, prefix: str) -> list[str]:
        """The names of all unit files that were put into this device, beginning with *prefix*."""
        directory = self.box.root / "etc/systemd/system"
        return sorted(path.name for path in directory.iterdir() if path.name.startswith(prefix))

    def container(self, name: str) -> dict[str, Any] | None:
        """What podman says of a container; None when there is none."""
        done = self.box.run(["podman", "container", "inspect", name], check=False)
        found: list[dict[str, Any]] = json.loads(done.stdout) if done.returncode == 0 else []
        return found[0] if found else None

    def containers(self) -> list[str]:
        """The names of all containers, also of those that do not run."""
        return sorted(self.box.text("podman", "ps", "-a", "--format", "{{.Names}}").split())

    def identities(
        self,
        *,
        files: Collection[str] = (),
        units: Collection[str] = (),
        containers: Collection[str] = (),
    ) -> dict[str, object]:
        """What must be the same as long as nothing is touched: inodes, invocations, starts."""
        started = {name: self.container(name) or {} for name in containers}
        return {
            **{f"file:{path}": self.file(path) for path in files},
            **{f"unit:{name}": self.unit(name, "InvocationID", "NRestarts") for name in units},
            **{
                f"container:{name}": (found.get("Id"), found.get("State", {}).get("StartedAt"))
                for name, found in started.items()
            },
        }

    def everything(self) -> list[str]:
        """All that a Score might leave on a device: files, links and directories, and containers."""
        found = self.box.text(
            *("find", "/etc", "/usr/local", "/srv", "/home", "/root", "-xdev"),
            # The agent's own.
            *("-not", "-path", "/etc/harmony/floor.copy.json", "-not", "-path", "/etc/harmony"),
            *("-printf", r"%p %y %i %s %m %U %G %T@ %l\n"),
        )
        containers = self.box.text(
            "podman", "ps", "-a", "--format", "{{.Names}} {{.ID}} {{.State}}"
        )
        return sorted(found.splitlines()) + containers.splitlines()

    def agent_pid(self) -> int:
        """Its process, as the box numbers it; 0 while there is none."""
        return int(self.unit(AGENT, "MainPID")["MainPID"])


async def until(
    device: Pi, holds: Callable[[ActualState], bool], *, within_s: float = 60
) -> ActualState:
    """The first state that *device* reports for which *holds* is true."""
    last: ActualState | None = None
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s), device.watch() as states:
            async for last in states:
                if holds(last):
                    return last
    raise AssertionError(f"never so within {within_s:g} s; last seen: {last}")


async def pushed(
    device: Pi, entries: Mapping[str, Pushable[PiTopology]]
) -> tuple[ActualState, list[ActualState]]:
    """Push, and wait: the state at the end, and those on the way."""
    seen: list[ActualState] = []
    taken = await device.put(entries)
    return await device.wait(taken, on_state=seen.append), seen


async def heard(device: Pi, *, beats: int = 1) -> None:
    """Its heart beats: so many times are seen.

    Whoever was cut off is given as long as a connection needs to be given up and made anew.
    """
    seen: set[int] = set()
    async with asyncio.timeout(120):
        while len(seen) < beats:
            if beat := await device.heartbeat():
                seen.add(beat.queue_seq)
            await asyncio.sleep(0.1)


async def heard_again(device: Pi) -> None:
    """It has beaten twice since this was asked."""
    await heard(device, beats=3)


async def allowed(pi: Box, device: Pi, jobs: str) -> None:
    """Have the device allow these."""
    pi.write("/etc/harmony/policy.toml", f'preset = "open"\njobs = "{jobs}"\n')
    await asyncio.to_thread(pi.run, ["systemctl", "restart", AGENT])
    await heard_again(device)


def in_shell(*steps: str) -> tuple[str, ...]:
    """A container's command: *steps* in order. It ends when told to, as PID 1 by itself does not."""
    waited = "; ".join(f"{step} & wait $!" for step in steps)
    return "sh", "-c", f"trap 'exit 0' TERM; {waited}"


def statuses(state: ActualState, ids: Sequence[str] | None = None) -> dict[str, str]:
    """The status of each Score, or of those with *ids*."""
    return {
        name: page.outcome.status for name, page in state.scores.items() if not ids or name in ids
    }


def code_of(state: ActualState, score: str) -> str:
    """The error's code of a Score that has failed, else its status."""
    outcome = state.scores[score].outcome
    return outcome.error.code if isinstance(outcome, Failure) else outcome.status

"""One Pi in a box."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

__all__ = ["Box", "forget_group"]

START_SH, FORGET_SH = (Path(__file__).with_name(name) for name in ("start.sh", "forget.sh"))
BOOT_TIMEOUT_S = 120
_LASTING = ThreadPoolExecutor(1, "boxes")
"""A box ends with the *thread* that began it (prctl(2)), which must be none that comes and goes."""


class Box:
    """Made by `Bed.boot`. Its files outlive its power; it ends with its bed."""

    def __init__(
        self, name: str, address: str, layers: Sequence[Path], directory: Path, network: str
    ) -> None:
        self.name = name
        self.address = address
        """Its address in the bed's network."""
        self.pid = 0
        """The host's id of the box's PID 1; 0 while it is off."""
        self._layers = layers
        self._directory = directory
        self._network = network
        self._parent: subprocess.Popen[bytes] | None = None
        self._link_state = "up"
        self._group = f"{network}/{name}"
        for part in ("upper", "work", "root", "containers"):
            (directory / part).mkdir(parents=True, exist_ok=True)

    @property
    def root(self) -> Path:
        """The box's whole file system, as the host reaches it."""
        return Path(f"/proc/{self.pid}/root")

    @property
    def has_ended(self) -> bool:
        """Whether it was on, and went off or down to boot again by itself."""
        return self._parent is not None and self._parent.poll() is not None

    @property
    def dbus_address(self) -> str:
        """The system bus of the box, for DBUS_SYSTEM_BUS_ADDRESS."""
        return f"unix:path={self.root}/run/dbus/system_bus_socket"

    @property
    def podman_url(self) -> str:
        """podman's REST socket in the box. Socket-activated, once `podman.socket` is started."""
        return f"unix://{self.root}/run/podman/podman.sock"

    def power_on(self) -> None:
        """Boot, on whatever the last run left, and wait until systemd says that it is done."""
        self._parent = _LASTING.submit(self._begin).result()
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        self._await(self._has_init, deadline, "its PID 1")
        self._plug_in()
        self._await(self._is_up, deadline, "systemd")
        self.run(["systemctl", "start", "podman.socket"])

    def _begin(self) -> subprocess.Popen[bytes]:
        with (self._directory / "console.log").open("ab") as log:
            return subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "unshare", "-m"),
                    *("bash", str(START_SH), self._group, ":".join(map(str, self._layers))),
                    *(str(self._directory), self.name),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def power_cut(self) -> None:
        """Everything in the box is killed at once: nothing is stopped in order, and nothing written any more.

        The host's page cache survives, so what was written is there, unlike on a Pi whose plug is pulled.
        """
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        if self._parent is not None:
            # It ends when the box has: only then is nothing left.
            with suppress(subprocess.TimeoutExpired):
                self._parent.wait(10)
            self._parent.kill()
            self._parent.wait()
            forget_group(self._group)
        self.pid, self._parent = 0, None
        subprocess.run(
            ["ip", "-n", self._network, "link", "del", self._cable],
            check=False,
            capture_output=True,
        )

    def reboot(self) -> None:
        """An orderly reboot."""
        self.run(["systemctl", "reboot"], check=False)
        with suppress(subprocess.TimeoutExpired):
            self.await_end()
        self.power_cut()
        self.power_on()

    def await_end(self) -> None:
        """Wait until the box has gone down, of which somebody in it has asked; `TimeoutExpired` if not."""
        assert self._parent is not None
        self._parent.wait(BOOT_TIMEOUT_S)

    def cut_network(self) -> None:
        """Pull the network cable. It stays out over reboots."""
        self._link("down")

    def restore_network(self) -> None:
        """Put the network cable back."""
        self._link("up")

    def run(
        self,
        command: Sequence[str],
        *,
        check: bool = True,
        stdin: bytes | None = None,
        timeout_s: float = 60,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run *command* inside, as root, and wait for it."""
        done = subprocess.run(
            self.inside(command), check=False, input=stdin, capture_output=True, timeout=timeout_s
        )
        if check and done.returncode:
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise AssertionError(f"{self.name}: {' '.join(command)} -> {done.returncode}\n{said}")
        return done

    def text(self, *command: str) -> str:
        """What *command* prints, stripped."""
        return self.run(command).stdout.decode().strip()

    def inside(self, command: Sequence[str]) -> list[str]:
        """The host's command that runs *command* inside."""
        environment = [
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "TERM=xterm",
        ]
        return ["nsenter", "-t", str(self.pid), "-a", *environment, *command]

    def read(self, path: str) -> bytes:
        return self._host_path(path).read_bytes()

    def write(self, path: str, content: bytes | str, *, mode: int = 0o644) -> None:
        """Write a file, with the directories above it."""
        target = self._host_path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)

    def wait_for(self, holds: Callable[[], bool] | Sequence[str], *, timeout_s: float = 30) -> None:
        """Until *holds* is true, or the command exits 0."""
        check = holds if callable(holds) else lambda: self.run(holds, check=False).returncode == 0
        self._await(check, time.monotonic() + timeout_s, str(holds))

    def journal(self, unit: str) -> str:
        """Everything that *unit* logged."""
        return self.text("journalctl", "--no-pager", "-o", "cat", "-u", unit)

    def end(self) -> None:
        """Off, and everything of it gone."""
        self.power_cut()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def _cable(self) -> str:
        return f"v-{self.name}"[:15]

    def _host_path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _link(self, state: str) -> None:
        self._link_state = state
        subprocess.run(["ip", "-n", self._network, "link", "set", self._cable, state], check=True)

    def _plug_in(self) -> None:
        inner = f"e-{self.name}"[:15]
        steps = f"""
            ip -n {self._network} link add {self._cable} type veth peer name {inner} netns {self.pid}
            ip -n {self._network} link set {self._cable} master br0 {self._link_state}
            nsenter -t {self.pid} -n ip link set {inner} name eth0
            nsenter -t {self.pid} -n ip addr add {self.address}/24 dev eth0
            nsenter -t {self.pid} -n ip link set eth0 up
            nsenter -t {self.pid} -n ip route add default via 10.77.0.1
        """
        for step in filter(None, map(str.strip, steps.splitlines())):
            subprocess.run(step.split(), check=True)

    def _has_init(self) -> bool:
        assert self._parent is not None
        if self._parent.poll() is not None:
            return False
        children = Path(f"/proc/{self._parent.pid}/task/{self._parent.pid}/children").read_text()
        for child in map(int, children.split()):
            # One that only prepares the box may be gone by now.
            with suppress(FileNotFoundError, ProcessLookupError):
                if b"/sbin/init" in Path(f"/proc/{child}/cmdline").read_bytes():
                    self.pid = child
                    return True
        return False

    def _is_up(self) -> bool:
        state = self.run(["systemctl", "is-system-running"], check=False).stdout.strip()
        return state in {b"running", b"degraded"}

    def _await(self, holds: Callable[[], bool], deadline: float, what: str) -> None:
        while not holds():
            dead = self._parent is None or self._parent.poll() is not None
            if dead or time.monotonic() > deadline:
                log = (self._directory / "console.log").read_text(errors="replace")[-2000:]
                raise AssertionError(f"{self.name}: {what} did not come; its console said:\n{log}")
            time.sleep(0.02)


def forget_group(name: str) -> None:
    """Remove that control group, and all below it, if there is one. What is left in it is killed."""
    subprocess.run(["unshare", "-m", "bash", str(FORGET_SH), name], check=True)

"""``harmony``, run many times by tests: by a process that has its modules already, and forks for each.

What is run is `main`, in a process of its own with an environment and files of its own; only the start of
Python and the imports are done before, once. They are most of what a command costs, and the tests run
thousands. Where starting is what a test is about, or signals, or a terminal, it starts a process itself.

::

    said = await run(["status", "--json"], env=..., cwd=..., stdin="")
    said.status, said.out, said.err
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import attrs

__all__ = ["Ended", "run"]

_PRELOADED = (
    "harmony_scores",
    "harmony_pi_topology.topology",
    "harmony_core.testing",
    "nats",
    "yaml",
)
_AS_AT_ITS_START = frozenset(
    {"PATH", "PYTHONPATH", "PYTHONHASHSEED", "PYTHONIOENCODING", "LANG", "LC_ALL"}
)
"""What the interpreter itself looks at when it starts: who changes one of them gets a Python of their own."""


@attrs.frozen
class Ended:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


async def run(
    arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None, stdin: str = ""
) -> Ended:
    """Run ``harmony`` with these *arguments* and return how it ended; it is killed where nobody waits for it
    any more."""
    if any(env.get(name) != os.environ.get(name) for name in _AS_AT_ITS_START):
        return await _run_alone(arguments, env=env, cwd=cwd, stdin=stdin)
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        given.write(stdin.encode())
        given.seek(0)
        asked = {"arguments": list(arguments), "env": dict(env), "cwd": str(cwd or Path.cwd())}
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.connect(_server())
            body = json.dumps(asked).encode()
            descriptors = [each.fileno() for each in (given, out, err)]
            socket.send_fds(asking, [len(body).to_bytes(4, "big")], descriptors)
            asking.sendall(body)
            asking.setblocking(False)
            status = await _until_ended(asking)
        out.seek(0)
        err.seek(0)
        return Ended(status, out.read().decode(), err.read().decode())


async def _until_ended(asking: socket.socket) -> int:
    """Return the exit status, which is told after the number of the process."""
    loop = asyncio.get_running_loop()
    told, pid = b"", None
    try:
        while part := await loop.sock_recv(asking, 64):
            told += part
            if pid is None and b"\n" in told:
                pid = int(told.partition(b"\n")[0])
    except asyncio.CancelledError:
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise
    return int(told.split(b"\n")[1])


async def _run_alone(
    arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path | None, stdin: str
) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harmony_control.cli", *arguments),
        cwd=cwd,
        env=env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


_servers: dict[tuple[int, int], tuple[str, subprocess.Popen[bytes]]] = {}


def _server() -> str:
    """Return the address of the process that forks, in the namespaces in which this one is now."""
    net, mount = (Path("/proc/self/ns", kind).stat().st_ino for kind in ("net", "mnt"))
    where = (net, mount)
    if where not in _servers:
        address = str(Path(tempfile.mkdtemp(prefix="harmony-preloaded-")) / "socket")
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.preloaded", address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
        atexit.register(process.communicate)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        _servers[where] = (address, process)
    return _servers[where][0]


def _serve(address: str) -> None:
    """Fork for each that asks at *address*, until standard input ends."""
    for name in _PRELOADED:
        importlib.import_module(name)
    import harmony_control.cli as commands

    for module in pkgutil.iter_modules(commands.__path__, "harmony_control.cli."):
        if not module.name.endswith("__main__"):
            # What an extra brings may not be installed.
            with suppress(ImportError):
                importlib.import_module(module.name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, _do_nothing)
    woken, wakes = socket.socketpair()
    woken.setblocking(False)
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    waiting: dict[int, socket.socket] = {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(address)
        listening.listen(64)
        print("ready", flush=True)
        while True:
            ready = select.select([0, listening.fileno(), woken.fileno()], [], [])[0]
            if woken.fileno() in ready:
                with suppress(BlockingIOError):
                    woken.recv(4096)
                _tell_ended(waiting)
            if 0 in ready:
                return
            if listening.fileno() in ready:
                asking, _ = listening.accept()
                asking.settimeout(30)
                waiting[_fork(asking, [listening, woken, wakes, *waiting.values()])] = asking


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Have the signal wake `select`, by the descriptor that is set for that."""


def _tell_ended(waiting: dict[int, socket.socket]) -> None:
    while waiting:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with waiting.pop(pid) as asking, suppress(OSError):
            asking.sendall(f"{os.waitstatus_to_exitcode(status)}".encode())


def _fork(asking: socket.socket, not_its: Sequence[socket.socket]) -> int:
    """Start what *asking* asks for, and return its pid."""
    size, descriptors, _, _ = socket.recv_fds(asking, 4, 3)
    body, length = b"", int.from_bytes(size, "big")
    while len(body) < length:
        body += asking.recv(length - len(body))
    if pid := os.fork():
        for descriptor in descriptors:
            os.close(descriptor)
        asking.sendall(f"{pid}\n".encode())
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for each in (asking, *not_its):
            each.close()
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        status = _be_command(**json.loads(body))
    except BaseException:  # noqa: BLE001 - as where Python ends by it
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
        with suppress(Exception):
            sys.stderr.flush()
        os._exit(status)


def _be_command(arguments: list[str], env: dict[str, str], cwd: str) -> int:
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process is there
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(  # noqa: SIM115
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    os.chdir(cwd)
    from harmony_control.cli import main

    sys.argv = ["harmony", *arguments]
    try:
        return main()
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
            return 1
        return error.code or 0


if __name__ == "__main__":
    _serve(sys.argv[1])

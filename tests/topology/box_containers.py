"""The containers of a Pi in a box, and a bystander who works in that box with podman's own command."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import subprocess
from collections.abc import Sequence
from functools import partial
from typing import Any

from harmony_core.container_turns import ContainerTurns
from harmony_core.reconciler import MemoryRecords, Records
from harmony_core.resources import HOLD_DIRECTORY, PublishedPort
from harmony_core.secret_values import SecretValues
from harmony_core.testing import ContainersUnderTest, ImagesUnderTest
from harmony_pi_topology.common.journal import Journal
from harmony_pi_topology.containers.ports import bind_port
from harmony_pi_topology.containers.reconciler import PodmanContainers
from harmony_pi_topology.testing.containers_contract import CLAIMED_LABELS
from tests.box import Box, Registry

__all__ = ["BoxBystander", "emptied", "pushed_images", "under_test", "without_tag"]

_HOLD = f"{HOLD_DIRECTORY}/hold.json"
_LISTEN = """
import socket, sys
listener = socket.create_server(("", {port}))
print("listening", flush=True)
sys.stdin.read()
"""

_BIND = f"""
from __future__ import annotations
import errno, json, socket, sys
from ipaddress import ip_address
from types import SimpleNamespace
{inspect.getsource(bind_port)}
print(bind_port(SimpleNamespace(**json.loads(sys.argv[1]))))
"""

_OPEN_PROCESS = """
import os, socket, sys
here = socket.socket(fileno=int(sys.argv[1]))
socket.send_fds(here, [b"!"], [os.pidfd_open(int(sys.argv[2]))])
"""


def pushed_images(registry: Registry) -> ImagesUnderTest:
    """Three different ones, one that the registry has not, and one of a registry that is not there."""
    pages = ("one\n", "two\n", "three\n")
    first, second, third = (
        registry.push_busybox("web", f"{n}", page=page) for n, page in enumerate(pages)
    )
    digest = f"sha256:{'0' * 64}"
    return ImagesUnderTest(
        first=first,
        second=second,
        third=third,
        with_volume=registry.push_busybox(
            "web", "volume", page="four\n", volumes=("/data",), labels=CLAIMED_LABELS
        ),
        missing=f"{registry.host}/web:gone@{digest}",
        unreachable=f"{registry.host.partition(':')[0]}:1/web:1@{digest}",
    )


def emptied(box: Box) -> None:
    """Take away every container and image, ours or not, and the contract's files."""
    box.run(["podman", "rm", "-af", "-t", "0", "-v"])
    box.run(["podman", "rmi", "-af"])
    box.run(["podman", "volume", "rm", "-af"])
    box.run(["podman", "secret", "rm", "--all"])
    box.run(["rm", "-rf", "/srv/harmony-contract"])


def under_test(
    box: Box,
    images: ImagesUnderTest,
    *,
    records: Records | None = None,
    turns: ContainerTurns | None = None,
) -> tuple[ContainersUnderTest, BoxBystander]:
    """Reconcilers that share their records, as an agent's do across its restarts."""
    shared = MemoryRecords() if records is None else records
    values = SecretValues()

    def opened() -> PodmanContainers:
        return PodmanContainers(
            box.podman_url,
            records=shared,
            root=box.root,
            probe_address=box.address,
            open_process=partial(_open_process, box),
            bind=partial(_bind, box),
            secret_values=values,
            turns=turns,
            journal=Journal(box.inside(["journalctl"])),
            liveness_every_s=0.2,
        )

    bystander = BoxBystander(box, images)
    host = ContainersUnderTest(
        containers=opened(),
        bystander=bystander,
        images=images,
        reopen=opened,
        secret_values=values,
    )
    return host, bystander


class BoxBystander:
    """A `ContainerBystander` in a box."""

    def __init__(self, box: Box, images: ImagesUnderTest) -> None:
        self._box = box
        self._images = images
        self._listeners: dict[int, asyncio.subprocess.Process] = {}

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def identity(self, name: str) -> tuple[str, str] | None:
        found = await self.inspect(name)
        return (found["Id"], found["State"]["StartedAt"]) if found is not None else None

    async def make_strange(self, name: str) -> None:
        image = without_tag(self._images.third)
        await self.run("podman", "run", "-qd", "--name", name, image, "sleep", "1000")

    async def kill(self, name: str) -> None:
        before = await self.inspect(name)
        assert before is not None
        await self.run("kill", "-9", str(before["State"]["Pid"]))
        for _ in range(500):
            now = await self.inspect(name)
            if now is None or now["State"]["Pid"] != before["State"]["Pid"]:
                return
        raise AssertionError(f"podman has not noticed that {name} was killed")

    async def stop(self, name: str) -> None:
        await self.run("podman", "stop", "-t", "0", name)

    async def delete(self, name: str) -> None:
        await self.run("podman", "rm", "-f", "-t", "0", name)

    async def rename(self, name: str, other: str) -> None:
        await self.run("podman", "rename", name, other)

    async def has_image(self, image: str) -> bool:
        done = await self.run("podman", "image", "exists", without_tag(image), check=False)
        return done.returncode == 0

    async def volume(self, name: str, target: str) -> str | None:
        found = await self.inspect(name)
        assert found is not None
        here = [
            m["Name"]
            for m in found["Mounts"]
            if (m["Type"], m["Destination"]) == ("volume", target)
        ]
        return here[0] if here else None

    async def has_volume(self, volume: str) -> bool:
        return (await self.run("podman", "volume", "exists", volume, check=False)).returncode == 0

    async def read_inside(self, name: str, path: str) -> str:
        return (await self.run("podman", "exec", name, "cat", path)).stdout.decode()

    async def read_environment(self, name: str, variable: str) -> str | None:
        done = await self.run("podman", "exec", name, "cat", "/proc/1/environ")
        for each in done.stdout.decode().split("\0"):
            name, _, value = each.partition("=")
            if name == variable:
                return value
        return None

    async def tell_all(self, name: str) -> str:
        """What podman says of it, of an image that is made of it, and in its log."""
        image = "localhost/committed"
        await self.run("podman", "commit", "-q", name, image)
        told = [
            await self.run("podman", "inspect", name),
            await self.run("podman", "image", "inspect", image),
            await self.run("podman", "logs", name),
            await self.run("podman", "secret", "ls"),
        ]
        await self.run("podman", "rmi", image)
        return "".join(each.stdout.decode() for each in told)

    async def list_secrets(self) -> Sequence[str]:
        done = await self.run("podman", "secret", "ls", "--format", "{{.Name}}")
        return done.stdout.decode().split()

    async def make_secret(self, name: str, value: str) -> None:
        command = ["podman", "secret", "create", name, "-"]
        await asyncio.to_thread(self._box.run, command, stdin=value.encode())

    async def delete_secret(self, name: str) -> None:
        await self.run("podman", "secret", "rm", name)

    async def hold_port(self, port: int) -> None:
        listener = await asyncio.create_subprocess_exec(
            *self._box.inside(["python3", "-c", _LISTEN.format(port=port)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._listeners[port] = listener
        assert listener.stdout is not None
        await listener.stdout.readline()

    async def free_port(self, port: int) -> None:
        # It ends with its input: killing what entered the box would leave behind what runs there.
        await self._listeners.pop(port).communicate(b"")

    async def plug_in(self, path: str, numbers: str) -> None:
        kind, _, pair = numbers.partition(" ")
        major, minor = pair.split(":")
        node = f"mknod {path}.new {kind} {major} {minor} && mv {path}.new {path}"
        await self.run("sh", "-c", f"mkdir -p $(dirname {path}) && {node}")

    async def unplug(self, path: str) -> None:
        await self.run("rm", "-f", path)

    async def write_hold(self, name: str, data: bytes | None) -> None:
        write = f"cat > {_HOLD}.new && mv {_HOLD}.new {_HOLD}"
        command = f"rm {_HOLD}" if data is None else write
        within = ["podman", "exec", "-i", name, "sh", "-c", command]
        await asyncio.to_thread(self._box.run, within, stdin=data or b"")

    def write(self, path: str, content: bytes) -> None:
        self._box.write(path, content)

    async def inspect(self, name: str) -> Any:
        """What podman's own command says of it; None when there is none."""
        done = await self.run("podman", "container", "inspect", name, check=False)
        return json.loads(done.stdout)[0] if done.returncode == 0 else None

    async def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return await asyncio.to_thread(self._box.run, command, check=check)

    async def close(self) -> None:
        """Let go of what is still held."""
        for port in list(self._listeners):
            await self.free_port(port)


def without_tag(image: str) -> str:
    """As podman's command wants it: not both tag and digest."""
    name, _, digest = image.partition("@")
    return f"{name.rpartition(':')[0]}@{digest}"


def _bind(box: Box, port: PublishedPort) -> int:
    """The device's ports are those of the box: tried inside."""
    return int(box.run(["python3", "-c", _BIND, port.model_dump_json()]).stdout)


def _open_process(box: Box, pid: int) -> int:
    """Processes have other numbers in a box: opened inside, and handed out."""
    here, there = socket.socketpair()
    with here, there:
        done = subprocess.run(
            box.inside(["python3", "-c", _OPEN_PROCESS, str(there.fileno()), str(pid)]),
            pass_fds=[there.fileno()],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise ProcessLookupError(done.stderr.decode())
        _, (descriptor,), *_ = socket.recv_fds(here, 1, 1)
        return descriptor

"""The network of a Pi in a box, and a bystander who works in that box with nmcli.

eth0, by which the box is reached, is none of NetworkManager's business. A second cable, eth1, leads to a
control plane: a socket that listens at the other end. There is no other way to it, whatever eth0 may know.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_core.secret_values import SecretValues
from harmony_pi_topology.network.networkmanager import SdbusNetworkManager
from harmony_pi_topology.testing.network_contract import NetworkConfiguratorContract
from harmony_pi_topology.testing.network_under_test import NetworkUnderTest
from tests.box import Box

__all__ = [
    "BUS",
    "WIRE",
    "BoxNetwork",
    "NetworksOfABox",
    "cabled",
    "emptied",
    "find_other_end",
    "networks_of",
]

WIRE = NetworkConfiguratorContract.WIRE
BUS = NetworkConfiguratorContract.BUS
RELAY = "/run/bus-relay.sock"
_END = "n-"
_NM, _NM_PATH = "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"
_QUIET = "[main]\nno-auto-default=*\n"
_EMPTY = f"""
busctl call {_NM} {_NM_PATH} {_NM} CheckpointDestroy o /
nmcli -g UUID,TYPE connection show | grep -v :loopback | cut -d: -f1 |
    xargs --no-run-if-empty nmcli connection delete
ip link delete br7
ip address flush dev {WIRE}
"""


def cabled(box: Box, network: str) -> None:
    """Plug the second cable in, and start NetworkManager and the relay to its bus."""
    end = find_other_end(box)
    for command in (
        f"ip -n {network} link add {end} type veth peer name {WIRE} netns {box.pid}",
        f"ip -n {network} address add {BUS}/24 dev {end}",
    ):
        subprocess.run(command.split(), check=True)
    _plug_in_alone(box, network)
    box.run(["ip", "route", "add", "unreachable", "10.79.0.0/24", "metric", "9000"])
    box.write("/etc/NetworkManager/conf.d/20-contract.conf", _QUIET)
    box.run(["systemctl", "start", "NetworkManager.service"])
    relay = Path(__file__).with_name("bus_relay.py").read_text()
    box.write("/run/bus_relay.py", relay)
    box.run(["systemd-run", "--unit=bus-relay", "python3", "/run/bus_relay.py", RELAY])
    box.wait_for(["test", "-S", RELAY])


def _plug_in_alone(box: Box, network: str) -> None:
    """Every box's second cable leads to the same address: one of them is plugged in at a time."""
    listed = subprocess.run(
        ["ip", "-n", network, "-json", "link"], check=True, capture_output=True
    ).stdout
    for each in json.loads(listed):
        if (name := each["ifname"]).startswith(_END):
            state = "up" if name == find_other_end(box) else "down"
            subprocess.run(["ip", "-n", network, "link", "set", name, state], check=True)


def emptied(box: Box, network: str) -> None:
    """Take away every profile, and what they have left behind; have its cable be the one in use.

    A change that still waits to be confirmed would else take itself back in the middle of the next test.
    """
    _plug_in_alone(box, network)
    box.run(["systemctl", "start", "NetworkManager.service"])
    box.run(["sh", "-c", _EMPTY], check=False)


class NetworksOfABox:
    """Reconcilers that share their records, as an agent's do across its restarts."""

    def __init__(
        self,
        box: Box,
        network: str,
        secrets: Path,
        memory: tuple[MemoryRecords, MemoryBackups] | None = None,
    ) -> None:
        self.bystander = BoxNetwork(box, secrets)
        self.secret_values = self.bystander.secret_values
        self._box = box
        self._network = network
        self._secrets = secrets
        self._records, self._backups = memory or (MemoryRecords(), MemoryBackups())
        self._opened: list[SdbusNetworkManager] = []

    @property
    def address(self) -> str:
        """The system bus of the box, as from within."""
        return f"unix:path={self._box.root}{RELAY}"

    def opened(self) -> SdbusNetworkManager:
        network = SdbusNetworkManager(
            records=self._records,
            backups=self._backups,
            reachability=self.bystander,
            secrets_directory=str(self._secrets),
            secret_values=self.secret_values,
            root=str(self._box.root),
            address=self.address,
        )
        self._opened.append(network)
        return network

    def under_test(self) -> NetworkUnderTest:
        return NetworkUnderTest(network=self.opened(), bystander=self.bystander, reopen=self.opened)

    def anew(self) -> NetworksOfABox:
        """After a reboot: what is remembered is the same."""
        memory = (self._records, self._backups)
        return NetworksOfABox(self._box, self._network, self._secrets, memory)

    async def cable(self, *, plugged_in: bool) -> None:
        """Pull the second cable, or put it back."""
        state = "up" if plugged_in else "down"
        command = f"ip -n {self._network} link set {find_other_end(self._box)} {state}"
        await asyncio.to_thread(subprocess.run, command.split(), check=True)

    async def close(self) -> None:
        for each in self._opened:
            await each.close()
        await self.bystander.silence(True)


class BoxNetwork:
    """A `NetworkBystander` in a box, and the way to its control plane."""

    def __init__(self, box: Box, secrets: Path) -> None:
        self.box = box
        self.secret_values = SecretValues()
        self._secrets = secrets
        self._server: asyncio.Server | None = None
        self._port = 0

    async def reachable(self) -> bool:
        """As `Reachability.reachable`: by a connection from within the box."""
        done = await self.run(*self.probe, check=False)
        return done.returncode == 0

    @property
    def probe(self) -> list[str]:
        """The command, in the box, that ends well when the control plane is reached."""
        return ["timeout", "3", "bash", "-c", f"exec 3<>/dev/tcp/{BUS}/{self._port}"]

    async def silence(self, silent: bool) -> None:
        if silent and self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        elif not silent and self._server is None:
            self._server = await asyncio.start_server(_hang_up, BUS, self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def begin_anew(self) -> None:
        await self.run("systemctl", "restart", "NetworkManager.service")

    async def make_strange(self, name: str, interface: str, address: str) -> None:
        await self.make(name, interface, address)
        await self.bring_up(name)

    async def make(self, name: str, interface: str, address: str) -> None:
        """The same, and leave it to NetworkManager when it is used."""
        given = f"type ethernet ifname {interface} ipv4.method manual ipv6.method disabled"
        await self.nmcli(
            "connection", "add", *given.split(), "con-name", name, "ipv4.addresses", address
        )

    async def modify(self, name: str, setting: str, value: str) -> None:
        await self.nmcli("connection", "modify", name, setting, value)

    async def read(self, name: str, setting: str) -> tuple[str, ...]:
        told = await self.nmcli("--escape", "no", "-g", setting, "connection", "show", name)
        return tuple(each.strip() for each in re.split("[,;]", told) if each.strip())

    async def profiles(self) -> set[str]:
        lines = (await self.nmcli("-g", "TYPE,NAME", "connection", "show")).splitlines()
        return {line.partition(":")[2] for line in lines if not line.startswith("loopback")}

    async def in_use(self, interface: str) -> str | None:
        lines = (await self.nmcli("-g", "DEVICE,CONNECTION", "device")).splitlines()
        return dict(line.split(":", 1) for line in lines).get(interface) or None

    async def identity(self, name: str) -> tuple[str, str]:
        told = await self.nmcli(
            "-g", "connection.uuid,GENERAL.DBUS-PATH", "connection", "show", name
        )
        uuid, *path = told.splitlines()
        return uuid, "".join(path)

    async def is_on_disk(self, name: str) -> bool:
        lines = (await self.nmcli("-g", "NAME,FILENAME", "connection", "show")).splitlines()
        return dict(line.split(":", 1) for line in lines)[name].startswith("/etc/")

    async def take_down(self, name: str) -> None:
        await self.nmcli("connection", "down", name)

    async def bring_up(self, name: str) -> None:
        await self.nmcli("connection", "up", name)
        own = await self.nmcli("-g", "ipv4.addresses", "connection", "show", name)
        while own not in await self.nmcli("-g", "IP4.ADDRESS", "connection", "show", name):
            await asyncio.sleep(0.02)  # it is asked for on the wire first

    async def delete(self, name: str) -> None:
        await self.nmcli("connection", "delete", name)

    async def mac(self, interface: str) -> str:
        done = await self.run("cat", f"/sys/class/net/{interface}/address")
        return done.stdout.decode().strip()

    async def addresses(self, interface: str) -> set[str]:
        done = await self.run("ip", "-json", "address", "show", "dev", interface, check=False)
        if done.returncode:
            return set()
        (told,) = json.loads(done.stdout)
        return {
            f"{each['local']}/{each['prefixlen']}"
            for each in told["addr_info"]
            if each["scope"] != "link"
        }

    async def drop_address(self, interface: str, address: str) -> None:
        await self.run("ip", "address", "delete", address, "dev", interface)
        while address in await self.nmcli("-g", "IP4.ADDRESS", "device", "show", interface):
            await asyncio.sleep(0.02)  # NetworkManager hears of it a little later

    def put_secret(self, name: str, content: bytes) -> None:
        path = self._secrets / name
        path.write_bytes(content)
        path.chmod(0o600)

    def put_value(self, word: str, value: str) -> None:
        self.secret_values.put(word, value)

    async def nmcli(self, *arguments: str) -> str:
        """What nmcli prints, stripped."""
        done = await self.run("env", "LC_ALL=C.UTF-8", "nmcli", *arguments)
        return done.stdout.decode().strip()

    async def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return await asyncio.to_thread(self.box.run, command, check=check)


@asynccontextmanager
async def networks_of(box: Box, bed: str, memory: Path) -> AsyncGenerator[NetworksOfABox]:
    """The networks of *box*, which is reached by the second cable and a profile that is no Score's."""
    emptied(box, bed)
    networks = NetworksOfABox(box, bed, memory)
    await networks.bystander.silence(False)
    await networks.bystander.make_strange("start", WIRE, NetworkConfiguratorContract.FIRST)
    yield networks
    await networks.close()


def find_other_end(box: Box) -> str:
    """Return the name, in the bed, of the other end of a box's second cable."""
    return f"{_END}{box.name}"[:15]


async def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()

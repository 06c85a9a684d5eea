"""The network of a device with NetworkManager: the reconciler behind `NetworkConfigurator`.

    .nm_dbus      its interfaces, and what its errors mean
    .nm_bus       asking it, with deadlines
    .nm_settings  profiles as it writes them, and as they are compared
    .nm_look      one look at one profile
    .login_files  the certificates and keys that it will read
    .nm_daemon    each verb over D-Bus
    .watch        hearing of every change

What is to be done (`.profile_plan`), and how a change proves itself (`.trial`), is the same for every daemon.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from harmony_core.change import Change
from harmony_core.reconciler import Availability, Backups, OnChange, Reachability, Records
from harmony_core.resources import Enterprise, NetworkProfile, NetworkState
from harmony_core.secret_values import SecretValues
from harmony_pi_topology.common.availability import availability_by
from harmony_pi_topology.common.presence import is_there
from harmony_pi_topology.common.secrets import (
    find_secret,
    forget_secret,
    keep_secret,
    own_secrets,
    read_secret,
)
from harmony_pi_topology.common.worker import Worker

from .login_files import find_login_problem
from .nm_bus import ANSWER_WITHIN_S, NetworkBus
from .nm_daemon import NetworkManagerDaemon
from .reconciler import NetworkReconciler
from .watch import NetworkWatch

__all__ = ["SdbusNetworkManager", "runs_dnsmasq"]

_SECRET_WITHIN_S = 10.0


class SdbusNetworkManager:
    """The NetworkManager on the bus at *address*, or this machine's. Connects when first asked.

    The files that it will read are looked for below *root*.
    """

    def __init__(
        self,
        *,
        records: Records,
        backups: Backups,
        reachability: Reachability,
        secrets_directory: str,
        secret_values: SecretValues | None = None,
        root: str = "/",
        address: str | None = None,
        answer_within_s: float = ANSWER_WITHIN_S,
    ) -> None:
        self._root = Path(root)
        self._worker = Worker("network files", threads=1, timeout_s=_SECRET_WITHIN_S)
        self._bus = NetworkBus(address, answer_within_s=answer_within_s)
        self._watch = NetworkWatch(self._bus)
        self._reconciler = NetworkReconciler(
            NetworkManagerDaemon(self._bus),
            records=records,
            backups=backups,
            reachability=reachability,
            secrets=_SecretFiles(secrets_directory, self._worker),
            secret_values=secret_values or SecretValues(),
            find_file=self._find_file,
            find_login_problem=self._find_login_problem,
            gives_addresses=self._gives_addresses,
        )

    @property
    def resource_class(self) -> type[NetworkProfile]:
        return NetworkProfile

    async def converge(
        self, resources: Sequence[NetworkProfile], *, apply: bool
    ) -> Sequence[Change | Exception]:
        """Converge *resources*. A change on trial is NotReady until it has proved itself.

        A result is `NetworkFailed` where NetworkManager or its interface refused something,
        `NetworkRolledBack` where a change was rolled back, and `NotOurs` where a profile that Harmony did not
        make has this name.
        """
        return await self._reconciler.converge(resources, apply=apply)

    async def observe(self, key: str) -> NetworkState | None:
        return await self._reconciler.observe(key)

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        """Remove the profiles that were made under *keys*. Restore a profile that was taken over to its state
        before."""
        return await self._reconciler.remove(keys, apply=apply)

    async def availability(self) -> Availability:
        """Ask NetworkManager, within two seconds, whether it is available."""
        return await availability_by(self._bus.ping, self._watch.mend)

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        await self._watch.begin(keys, on_change)

    async def close(self) -> None:
        await self._watch.end()
        self._bus.close()
        self._worker.close()

    async def _find_file(self, path: str) -> bool:
        return await self._worker.run(is_there, self._root / path.lstrip("/"))

    async def _find_login_problem(self, login: Enterprise, password: str | None) -> str | None:
        return await self._worker.run(find_login_problem, self._root, login, password)

    async def _gives_addresses(self, interface: str) -> bool:
        return await self._worker.run(runs_dnsmasq, self._root, interface)


def runs_dnsmasq(root: Path, interface: str) -> bool:
    """Return whether the dnsmasq that NetworkManager starts to serve others on *interface* is running:
    nothing reports its end."""
    try:
        pid = int((root / f"run/nm-dnsmasq-{interface}.pid").read_text())
        told = (root / f"proc/{pid}/stat").read_text()
    except (OSError, ValueError):
        return False
    name, _, rest = told.partition("(")[2].rpartition(") ")
    # One that has ended, and that nobody has asked about yet, is still told of.
    return name == "dnsmasq" and rest[:1] not in {"Z", "X"}


class _SecretFiles:
    """`SecretFiles` in *directory*; in a directory of their own are those that the device has made."""

    def __init__(self, directory: str, worker: Worker) -> None:
        self._directory = directory
        self._own = own_secrets(directory)
        self._worker = worker

    async def read(self, name: str) -> bytes:
        return await self._worker.run(read_secret, self._directory, name)

    async def find_own(self, name: str) -> bytes | None:
        return await self._worker.run(find_secret, self._own, name)

    async def keep_own(self, name: str, content: bytes) -> None:
        await self._worker.run(keep_secret, self._own, name, content)

    async def forget_own(self, name: str) -> None:
        await self._worker.run(forget_secret, self._own, name)

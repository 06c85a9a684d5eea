"""Registries of podman: the reconciler behind `RegistryHost`.

its files -> read here, by whose content it is known what podman has to say
podman    -> says it already: it has read them, or has just been started
          -> says otherwise: its service is sent SIGHUP, upon which it forgets what it has read; what it
             pulls meanwhile goes on
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Final

from sdbus import SdBus

from harmony_core.errors import CapabilityError, CapabilityUnavailable, UnitFailed, UnsafePath
from harmony_core.reconciler import Availability, OnChange, Reconciler, Records
from harmony_core.resources import File, FileState, ImageRegistry
from harmony_core.resources.image_registry import certificates_directory, host_of_place
from harmony_pi_topology.common.dbus import MANAGER_PATH, SYSTEMD, Manager, Unit, encode_unit_path
from harmony_pi_topology.common.dbus_asking import BusAsking
from harmony_pi_topology.common.path_calls import PATIENCE_S
from harmony_pi_topology.common.path_disk import PathDisk
from harmony_pi_topology.common.path_watch import PathWatcher
from harmony_pi_topology.containers.podman import DEFAULT_URL, Podman
from harmony_pi_topology.containers.podman_reply import FoundRegistry

from .configuration import Configuration
from .reconciler import Registries

__all__ = ["PodmanRegistries"]

_HOME = "/root/.config/containers"
"""Where podman looks, too, which runs as root."""
_OWN_FILES = (f"{_HOME}/registries.conf", "/etc/containers/registries.conf")
"""podman reads the first of them that is there."""
_DIRECTORIES = ("/etc/containers/registries.conf.d", f"{_HOME}/registries.conf.d")
"""And then all files of these that end so."""
_ENDING = ".conf"
_OTHER_CERTIFICATES = (f"{_HOME}/certs.d", "/etc/docker/certs.d")
_READ_MOST = 1024 * 1024
_SERVICE = "podman.service"
_ANSWER_WITHIN_S: Final = 10.0
_ASK_AGAIN_S: Final = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
"""So long after SIGHUP podman is asked, until it says what is in its files."""
_HEARD_WITHIN_S: Final = 0.25
"""So long it is given to hear of SIGHUP, where it is not known what it will say."""
_ERRORS: Final[Mapping[str, tuple[type[CapabilityError], str]]] = MappingProxyType(
    {
        "NoSuchUnit": (UnitFailed, "podman runs otherwise"),
        "NoSuchProcess": (UnitFailed, "it does not run"),
        "AccessDenied": (CapabilityUnavailable, "the agent must run as root"),
    }
)
_LOOK = (CapabilityUnavailable, "see on the device: journalctl -b _PID=1")


class PodmanRegistries(Registries):
    """*files* are those beneath *root* that are ours; *address* is of the bus of the systemd that runs
    podman."""

    def __init__(
        self,
        files: Reconciler[File, FileState],
        url: str = DEFAULT_URL,
        *,
        records: Records,
        root: str = "/",
        address: str | None = None,
        answer_within_s: float = 60.0,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._podman = _Podman(url, address, root, answer_within_s, patience_s)
        super().__init__(files, self._podman, records)
        self._watcher = PathWatcher(
            root, _paths_of, name="watching registries", patience_s=patience_s
        )

    async def availability(self) -> Availability:
        """Return whether podman is available. Wake podman only when it did not answer the last time."""
        await self._watcher.mend()
        reason = await self._podman.is_expected_to_answer()
        return Availability(available=reason is None, reason=reason or "")

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Watch all that podman reads about registries, whoever writes it, and report as `Reconciler.watch`
        describes."""
        await self._watcher.watch(keys, on_change)

    async def close(self) -> None:
        await self._watcher.close()
        await self.files.close()
        self._podman.close()


def _paths_of(keys: Collection[str]) -> Mapping[str, Collection[str]]:
    read = (*_OWN_FILES, *(f"{each}/" for each in _DIRECTORIES))
    return {
        key: (
            *read,
            *ImageRegistry.paths_of(key),
            f"{certificates_directory(key)}/",
            *(f"{each}/{host_of_place(key)}" for each in _OTHER_CERTIFICATES),
        )
        for key in keys
    }


class _Podman:
    """A `RegistryStore`."""

    def __init__(
        self, url: str, address: str | None, root: str, answer_within_s: float, patience_s: float
    ) -> None:
        self._podman = Podman(url, answer_within_s=answer_within_s)
        self._bus = BusAsking(
            address, answer_within_s=_ANSWER_WITHIN_S, errors=_ERRORS, otherwise=_LOOK
        )
        self._disk = _Disk("registries", root, patience_s)

    async def read_configuration(self) -> Configuration:
        return await self._disk.read_configuration()

    async def ask(
        self, expected: Mapping[str, FoundRegistry] | None
    ) -> Mapping[str, FoundRegistry]:
        # It may have read a file that is mended by now. Asked first, it also runs, and hears what it is sent.
        with suppress(CapabilityUnavailable):
            said = await self._podman.list_registries()
            if said == expected:
                return said
        await self._have_read_anew()
        for wait_s in _ASK_AGAIN_S if expected is not None else (_HEARD_WITHIN_S,):
            await asyncio.sleep(wait_s)
            with suppress(CapabilityUnavailable):
                said = await self._podman.list_registries()
                if said == expected:
                    return said
        return await self._podman.list_registries()

    async def find_process(self) -> str | None:
        with suppress(CapabilityError):
            return await self._bus.ask("asking which podman runs", _find_process)
        return None

    async def find_other_certificates(self, host: str) -> str | None:
        places = [f"{each}/{host}" for each in _OTHER_CERTIFICATES]
        return await self._disk.find_directory(places)

    async def list_certificates(self, host: str) -> Sequence[str]:
        directory = certificates_directory(host)
        return [
            path
            for path in await self._disk.list_below(directory)
            if path.rpartition("/")[0] == directory
        ]

    async def is_expected_to_answer(self) -> str | None:
        return await self._podman.is_expected_to_answer()

    def close(self) -> None:
        self._podman.close()
        self._bus.close()
        self._disk.close()

    async def _have_read_anew(self) -> None:
        # One that has ended since it was asked reads them when it is started.
        with suppress(UnitFailed):
            await self._bus.ask(
                "having podman read its registries anew",
                lambda bus: Manager.new_proxy(SYSTEMD, MANAGER_PATH, bus).kill_unit(
                    _SERVICE, "main", signal.SIGHUP
                ),
            )


async def _find_process(bus: SdBus) -> str | None:
    unit = Unit.new_proxy(SYSTEMD, encode_unit_path(_SERVICE), bus)
    load, active, invocation = await asyncio.gather(
        unit.load_state, unit.active_state, unit.invocation_id
    )
    if load != "loaded":
        return None  # podman runs otherwise
    return "" if active in {"inactive", "failed"} else invocation.hex() or None


class _Disk(PathDisk):
    async def read_configuration(self) -> Configuration:
        return await self._calls.run(self._read_configuration)

    async def find_directory(self, paths: Collection[str]) -> str | None:
        return await self._calls.run(self._find_directory, paths)

    # From here on in the thread.

    def _read_configuration(self) -> Configuration:
        own = next((each for each in _OWN_FILES if self._is_there(each)), None)
        paths = [
            path
            for directory in _DIRECTORIES
            for path in sorted(self._root.list_below(directory))
            if path.endswith(_ENDING) and path.rpartition("/")[0] == directory
        ]
        found = {path: self._read(path) for path in ([own] if own else []) + paths}
        return {path: content for path, content in found.items() if content != b""}

    def _read(self, path: str) -> bytes | None:
        try:
            return self._root.read(path, max_bytes=_READ_MOST)
        except FileNotFoundError:
            return b""  # gone since it was listed
        except UnsafePath:
            return None

    def _find_directory(self, paths: Collection[str]) -> str | None:
        return next((each for each in paths if self._is_there(each)), None)

    def _is_there(self, path: str) -> bool:
        try:
            return self._root.look(path) is not None
        except UnsafePath:
            return False

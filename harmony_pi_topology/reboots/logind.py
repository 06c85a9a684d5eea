"""systemd-logind over D-Bus: the reconciler behind `RebootHost`.

    ListInhibitors -> whoever blocks a shutdown is waited for: root would not be asked, and cut it short
    Reboot         -> logind waits for those that only delay it, and systemd ends every unit in order

Debian's packages say in /run/reboot-required that only a boot brings them into force: in the midst of an
upgrade. dpkg inhibits nothing, so its locks are asked who has them.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sdbus import DbusInterfaceCommonAsync, SdBus, dbus_method_async

from harmony_core.errors import CapabilityError, CapabilityUnavailable
from harmony_core.reconciler import Availability, OnChange, Records
from harmony_pi_topology.common.dbus_asking import BusAsking

from .reconciler import Reboots

__all__ = ["LOGIND", "LogindManager", "LogindReboots"]

LOGIND: Final = ("org.freedesktop.login1", "/org/freedesktop/login1")
"""Name and path on the bus."""
_ANSWER_WITHIN_S: Final = 10.0
"""It runs from boot on."""
_REQUIRED = "run/reboot-required"
_PACKAGES = "run/reboot-required.pkgs"
_LOCKS = ("var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock")
_FLOCK = "@hhqqi4x"
"""fcntl(2): type, whence, start, length, process."""
_TOLD_MOST = 10
_READ_MOST = 16 * 1024
_ROOT = "the agent must run as root"
_LOOK = (CapabilityUnavailable, "see on the device: journalctl -u systemd-logind")
_ERRORS: Final[Mapping[str, tuple[type[CapabilityError], str]]] = MappingProxyType(
    {
        "AccessDenied": (CapabilityUnavailable, _ROOT),
        "InteractiveAuthorizationRequired": (CapabilityUnavailable, _ROOT),
    }
)


class LogindManager(DbusInterfaceCommonAsync, interface_name="org.freedesktop.login1.Manager"):
    """systemd-logind."""

    @dbus_method_async("b")
    async def reboot(self, interactive: bool) -> None:
        raise NotImplementedError

    @dbus_method_async("", "a(ssssuu)")
    async def list_inhibitors(self) -> list[tuple[str, str, str, str, int, int]]:
        """Return (what, who, why, mode, user, process) of each."""
        raise NotImplementedError


class LogindReboots(Reboots):
    """A `RebootHost`'s reconciler. *root* is where the device's files are."""

    def __init__(
        self,
        *,
        records: Records,
        address: str | None = None,
        root: str = "/",
        answer_within_s: float = _ANSWER_WITHIN_S,
    ) -> None:
        self._logind = _Logind(address, root, answer_within_s)
        super().__init__(self._logind, records)

    async def availability(self) -> Availability:
        """Return whether the bus answers; the question starts logind."""
        return await self._logind.availability()

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Return at once: only the agent itself has the rule, so there is nothing to watch."""

    async def close(self) -> None:
        self._logind.close()


class _Logind:
    """The `RebootDaemon` on the bus at *address*, or on this machine's."""

    def __init__(self, address: str | None, root: str, answer_within_s: float) -> None:
        self._root = Path(root)
        self._bus = BusAsking(
            address, answer_within_s=answer_within_s, errors=_ERRORS, otherwise=_LOOK
        )

    async def find_system_reasons(self) -> Collection[str]:
        return await asyncio.to_thread(_read_required, self._root)

    async def find_obstacles(self) -> Collection[str]:
        found = await self._bus.ask(
            "asking who inhibits a shutdown", lambda bus: _logind(bus).list_inhibitors()
        )
        installing = await asyncio.to_thread(_find_installing, self._root)
        return installing + [
            f"{who}: {why}"
            for what, who, why, mode, *_ in found
            if mode.startswith("block") and "shutdown" in what.split(":")
        ]

    async def reboot(self) -> None:
        await self._bus.ask("rebooting", lambda bus: _logind(bus).reboot(False))

    async def availability(self) -> Availability:
        return await self._bus.availability()

    def close(self) -> None:
        self._bus.close()


def _logind(bus: SdBus) -> LogindManager:
    return LogindManager.new_proxy(*LOGIND, bus)


def _find_installing(root: Path) -> list[str]:
    """Return who has one of dpkg's locks. Do not take them: a program that tried at that moment would
    fail."""
    for path in (root / each for each in _LOCKS):
        try:
            with path.open("rb") as file:
                asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                found = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
        except OSError:  # without dpkg nobody installs
            continue
        if found[0] != fcntl.F_UNLCK:
            return [f"dpkg: packages are being installed or removed (process {found[4]})"]
    return []


def _read_required(root: Path) -> Collection[str]:
    """Return the packages that have asked for a reboot; ``the system`` where no name is given."""
    if not (root / _REQUIRED).exists():
        return ()
    try:
        with (root / _PACKAGES).open(encoding="utf-8", errors="replace") as file:
            names = sorted({line.strip() for line in file.read(_READ_MOST).splitlines()} - {""})
    except OSError:
        names = []
    return names[:_TOLD_MOST] or ["the system"]

"""systemd's hostnamed, timedated and localed over D-Bus: the reconciler behind `HostConfigurator`.

    set  -> SetStaticHostname, SetTimezone -> /etc/hostname, /etc/localtime, and the kernel
         -> the files of `locale_files`, which localed reads
    look -> the file, by whoever may have changed it; and what is in force, by who knows it

The programs end by themselves when nobody asks, and say so in the journal each time that they begin. So
they are asked what is in force once, after each deed, and when the file is another; not in every look.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

from sdbus import DbusInterfaceCommonAsync, SdBus, dbus_method_async, dbus_property_async

from harmony_core.change import Change
from harmony_core.errors import CapabilityError, CapabilityUnavailable, InvalidResource
from harmony_core.reconciler import Availability, OnChange, Records
from harmony_core.resources import HostSetting, HostSettingAt
from harmony_pi_topology.common.dbus_asking import BusAsking
from harmony_pi_topology.common.path_watch import PathWatcher
from harmony_pi_topology.common.worker import Worker

from .locale_files import LocaleFiles, file_of, layout_of, value_in
from .reconciler import HostSettings

__all__ = [
    "HOSTNAMED",
    "LOCALED",
    "TIMEDATED",
    "Hostnamed",
    "Localed",
    "SdbusHost",
    "Timedated",
]

HOSTNAMED: Final = ("org.freedesktop.hostname1", "/org/freedesktop/hostname1")
TIMEDATED: Final = ("org.freedesktop.timedate1", "/org/freedesktop/timedate1")
LOCALED: Final = ("org.freedesktop.locale1", "/org/freedesktop/locale1")
"""Name and path of each on the bus."""
_ANSWER_WITHIN_S: Final = 25.0
"""They are started by the first question."""
_READ_WITHIN_S: Final = 5.0
_ZONES: Final = "zoneinfo/"
_LANG: Final = "LANG="
_READ_MOST: Final = 4096
_ROOT = "the agent must run as root"
_LOOK = (
    CapabilityUnavailable,
    "see on the device: journalctl -u systemd-hostnamed -u systemd-timedated -u systemd-localed",
)
_ERRORS: Final[Mapping[str, tuple[type[CapabilityError], str]]] = MappingProxyType(
    {
        "InvalidArgs": (
            InvalidResource,
            "write one that this device has (timedatectl list-timezones)",
        ),
        "AccessDenied": (CapabilityUnavailable, _ROOT),
        "InteractiveAuthorizationRequired": (CapabilityUnavailable, _ROOT),
    }
)

_Fact: TypeAlias = tuple[int, int, int] | None
"""What is another whenever the file is: inode, size, time of its last change."""


class Hostnamed(DbusInterfaceCommonAsync, interface_name="org.freedesktop.hostname1"):
    """systemd-hostnamed."""

    @dbus_method_async("sb")
    async def set_static_hostname(self, hostname: str, interactive: bool) -> None:
        """Set the name for every boot, and the kernel's at once; empty for none."""
        raise NotImplementedError

    @dbus_method_async("sb")
    async def set_hostname(self, hostname: str, interactive: bool) -> None:
        """Set the kernel's name."""
        raise NotImplementedError

    @dbus_property_async("s")
    def hostname(self) -> str:
        """The kernel's."""
        raise NotImplementedError


class Timedated(DbusInterfaceCommonAsync, interface_name="org.freedesktop.timedate1"):
    """systemd-timedated."""

    @dbus_method_async("sb")
    async def set_timezone(self, timezone: str, interactive: bool) -> None:
        raise NotImplementedError

    @dbus_property_async("s")
    def timezone(self) -> str:
        raise NotImplementedError


class Localed(DbusInterfaceCommonAsync, interface_name="org.freedesktop.locale1"):
    """systemd-localed."""

    @dbus_property_async("as")
    def locale(self) -> list[str]:
        raise NotImplementedError

    @dbus_property_async("s", property_name="X11Layout")
    def x11_layout(self) -> str:
        raise NotImplementedError

    @dbus_property_async("s", property_name="X11Variant")
    def x11_variant(self) -> str:
        raise NotImplementedError


class SdbusHost:
    """A `HostConfigurator`'s reconciler. *root* is where the device's files are."""

    def __init__(
        self,
        *,
        records: Records,
        address: str | None = None,
        root: str = "/",
        answer_within_s: float = _ANSWER_WITHIN_S,
    ) -> None:
        self._daemons = _Daemons(address, root, answer_within_s)
        self._settings = HostSettings(self._daemons, records)
        self._watcher = PathWatcher(root, _paths_of, name="watching settings of the host")

    @property
    def resource_class(self) -> type[HostSetting]:
        return HostSetting

    async def converge(
        self, resources: Sequence[HostSetting], *, apply: bool
    ) -> Sequence[Change | Exception]:
        return await self._settings.converge(resources, apply=apply)

    async def observe(self, key: str) -> HostSettingAt | None:
        return await self._daemons.look(key, anew=True)

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        return await self._settings.remove(keys, apply=apply)

    async def availability(self) -> Availability:
        """Return whether the bus answers; the question starts the daemons."""
        await self._watcher.mend()
        return await self._daemons.availability()

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Watch *keys* by inotify. A name that only the kernel has is not noticed."""
        await self._watcher.watch(keys, on_change)

    async def close(self) -> None:
        await self._watcher.close()
        self._daemons.close()


def _paths_of(keys: Collection[str]) -> Mapping[str, Collection[str]]:
    return {key: HostSetting.paths_of(key) for key in keys}


class _Daemons:
    """The `HostDaemons` on the bus at *address*, or on this machine's."""

    def __init__(self, address: str | None, root: str, answer_within_s: float) -> None:
        self._root = Path(root)
        self._files = LocaleFiles(root)
        self._worker = Worker("settings of the host", threads=1, timeout_s=_READ_WITHIN_S)
        self._in_force: dict[str, tuple[_Fact, str]] = {}
        """What was in force when it was last asked, and how the file was then."""
        self._bus = BusAsking(
            address,
            answer_within_s=answer_within_s,
            errors=_ERRORS,
            otherwise=_LOOK,
            closed=self._in_force.clear,
        )

    async def look(self, name: str, *, anew: bool) -> HostSettingAt:
        fact, value = await self._worker.run(self._read, name)
        known = self._in_force.get(name)
        if anew or known is None or known[0] != fact:
            known = self._in_force[name] = fact, await self._ask_in_force(name)
        return HostSettingAt(value=value, in_force=known[1])

    async def set(self, name: str, value: str, *, was_there: bool = False) -> None:
        self._in_force.pop(name, None)
        what = f"setting the {name} to {value or 'none'}"
        if name == "hostname":
            await self._set_hostname(what, value)
        elif name == "timezone":
            await self._bus.ask(what, lambda bus: _timedated(bus).set_timezone(value, False))
        else:
            await self._files.write(name, value, was_there=was_there)

    async def _set_hostname(self, what: str, value: str) -> None:
        await self._bus.ask(what, lambda bus: _hostnamed(bus).set_static_hostname(value, False))
        # Where it was that already for every boot, the kernel is not told again.
        if value and await self._ask_in_force("hostname") != value:
            await self._bus.ask(what, lambda bus: _hostnamed(bus).set_hostname(value, False))

    async def availability(self) -> Availability:
        return await self._bus.availability()

    def close(self) -> None:
        self._bus.close()
        self._files.close()
        self._worker.close()

    async def _ask_in_force(self, name: str) -> str:
        async def ask(bus: SdBus) -> str:
            match name:
                case "timezone":
                    return await _timedated(bus).timezone
                case "locale":
                    return _lang_of(await _localed(bus).locale)
                case "keyboard":
                    localed = _localed(bus)
                    return layout_of(await localed.x11_layout, await localed.x11_variant)
                case _:
                    return await _hostnamed(bus).hostname

        return await self._bus.ask(f"asking for the {name}", ask)

    # From here on in the thread.

    def _read(self, name: str) -> tuple[_Fact, str]:
        """Return the state of the file, and its content; nothing where the content is not understood."""
        is_localed = name in {"locale", "keyboard"}
        path = self._root / (
            file_of(self._root, name) if is_localed else HostSetting.paths_of(name)[0]
        ).lstrip("/")
        try:
            facts = path.lstat()
            if is_localed:
                value = value_in(path, name)
            else:
                value = _zone_of(path) if name == "timezone" else _name_in(path)
        except FileNotFoundError:
            return None, "UTC" if name == "timezone" else ""
        except OSError as error:
            raise CapabilityUnavailable(
                f"{path} cannot be read: {error.strerror}; look at the kernel's log"
            ) from error
        return (facts.st_ino, facts.st_size, facts.st_mtime_ns), value


def _hostnamed(bus: SdBus) -> Hostnamed:
    return Hostnamed.new_proxy(*HOSTNAMED, bus)


def _timedated(bus: SdBus) -> Timedated:
    return Timedated.new_proxy(*TIMEDATED, bus)


def _localed(bus: SdBus) -> Localed:
    return Localed.new_proxy(*LOCALED, bus)


def _lang_of(words: Iterable[str]) -> str:
    return next((each.removeprefix(_LANG) for each in words if each.startswith(_LANG)), "")


def _zone_of(path: Path) -> str:
    """Return the time zone to which the link leads; nothing where it is a copy."""
    target = os.readlink(path) if path.is_symlink() else ""  # noqa: PTH115 - as it stands there
    return target.partition(_ZONES)[2]


def _name_in(path: Path) -> str:
    """Return the name in hostname(5): its first line that is no comment."""
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = (line.strip() for line in file.read(_READ_MOST).splitlines())
        return next((line for line in lines if line and not line.startswith("#")), "")

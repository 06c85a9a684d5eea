"""D-Bus, as far as systemd is spoken to: its interfaces, and what its errors mean.

One thin class a D-Bus interface: a proxy here, a served object in tests. Errors of the vendor, of systemd and
of NetworkManager become ours in one place, `to_capability_error`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from sdbus import (
    DbusInterfaceCommonAsync,
    dbus_method_async,
    dbus_property_async,
    dbus_signal_async,
    encode_object_path,
)
from sdbus.exceptions import SdBusBaseError, SdBusUnmappedMessageError

from harmony_core.errors import (
    CapabilityError,
    CapabilityUnavailable,
    InvalidResource,
    NotOurs,
    PolicyRefused,
    UnitFailed,
)

__all__ = [
    "MANAGER_PATH",
    "SYSTEMD",
    "Manager",
    "Service",
    "Timer",
    "Unit",
    "encode_unit_path",
    "error_name",
    "to_capability_error",
]

SYSTEMD: Final = "org.freedesktop.systemd1"
MANAGER_PATH: Final = "/org/freedesktop/systemd1"

_ERROR_NUMBER = re.compile(r"error number: (\d+)")

_GIVE = "install what brings it, or give the unit's content"
_CORRECT = "correct the unit file"
_REFUSES = (
    "take RefuseManualStart=yes or RefuseManualStop=yes out of its unit file, or leave it alone"
)
_LOOK = "see on the device: journalctl -b _PID=1"
_WAIT = "systemd does not answer at the moment; it is tried again later"
_ROOT = "the agent must run as root"
_ERRORS: Final[Mapping[str, tuple[type[CapabilityError], str]]] = MappingProxyType(
    {
        "NoSuchUnit": (UnitFailed, _GIVE),
        "FileNotFound": (UnitFailed, _GIVE),
        "UnitMasked": (PolicyRefused, "unmask it on the device, or leave it out of the Score"),
        "BadUnitSetting": (InvalidResource, _CORRECT),
        "LoadFailed": (InvalidResource, _CORRECT),
        "InconsistentMessage": (InvalidResource, _CORRECT),
        "InvalidArgs": (InvalidResource, _CORRECT),
        "OnlyByDependency": (InvalidResource, _REFUSES),
        "FileExists": (NotOurs, "remove what stands in the way"),
        "AccessDenied": (CapabilityUnavailable, _ROOT),
        "InteractiveAuthorizationRequired": (CapabilityUnavailable, _ROOT),
        "ServiceUnknown": (CapabilityUnavailable, _WAIT),
        "NameHasNoOwner": (CapabilityUnavailable, _WAIT),
        "LimitsExceeded": (CapabilityUnavailable, _WAIT),
        "NoReply": (CapabilityUnavailable, _WAIT),
        "Disconnected": (CapabilityUnavailable, _WAIT),
        "Timeout": (CapabilityUnavailable, _WAIT),
    }
)


class Manager(DbusInterfaceCommonAsync, interface_name="org.freedesktop.systemd1.Manager"):
    """systemd itself."""

    @dbus_method_async("ss", "o")
    async def start_unit(self, name: str, mode: str) -> str:
        """Queue a job that starts the unit. Return the job's object path."""
        raise NotImplementedError

    @dbus_method_async("ss", "o")
    async def stop_unit(self, name: str, mode: str) -> str:
        raise NotImplementedError

    @dbus_method_async("ss", "o")
    async def restart_unit(self, name: str, mode: str) -> str:
        """Restart the unit, or start it if it does not run; see `start_unit`."""
        raise NotImplementedError

    @dbus_method_async("ssa(sv)a(sa(sv))", "o")
    async def start_transient_unit(
        self,
        name: str,
        mode: str,
        properties: list[tuple[str, tuple[str, Any]]],
        auxiliary: list[tuple[str, list[tuple[str, tuple[str, Any]]]]],
    ) -> str:
        """Make a unit with these properties, and queue a job that starts it. Return the job's object path."""
        raise NotImplementedError

    @dbus_method_async("ssi")
    async def kill_unit(self, name: str, whom: str, signal: int) -> None:
        """Send *signal* to the processes of a unit, or to its ``main`` one."""
        raise NotImplementedError

    @dbus_method_async("s")
    async def reset_failed_unit(self, name: str) -> None:
        raise NotImplementedError

    @dbus_method_async("s")
    async def ref_unit(self, name: str) -> None:
        """Keep what systemd knows of a unit, also when it does not run, until the caller disconnects."""
        raise NotImplementedError

    @dbus_method_async("s")
    async def unref_unit(self, name: str) -> None:
        raise NotImplementedError

    @dbus_method_async()
    async def subscribe(self) -> None:
        """Have the signals of units sent, until the caller disconnects."""
        raise NotImplementedError

    @dbus_method_async()
    async def reload(self) -> None:
        """Read all unit files again; the answer comes once that is done."""
        raise NotImplementedError

    @dbus_method_async("s", "s")
    async def get_unit_file_state(self, file: str) -> str:
        """Return the state that the disk says now, whatever was loaded."""
        raise NotImplementedError

    @dbus_method_async("asbb", "ba(sss)")
    async def enable_unit_files(
        self, files: list[str], runtime: bool, force: bool
    ) -> tuple[bool, list[tuple[str, str, str]]]:
        """Enable *files*. Return (carries_install_info, changes)."""
        raise NotImplementedError

    @dbus_method_async("asbb", "ba(sss)")
    async def reenable_unit_files(
        self, files: list[str], runtime: bool, force: bool
    ) -> tuple[bool, list[tuple[str, str, str]]]:
        """Enable *files* after removing links that an older unit file asked for; see `enable_unit_files`."""
        raise NotImplementedError

    @dbus_method_async("asb", "a(sss)")
    async def disable_unit_files(
        self, files: list[str], runtime: bool
    ) -> list[tuple[str, str, str]]:
        raise NotImplementedError

    @dbus_property_async("t")
    def userspace_timestamp_monotonic(self) -> int:
        """When it was first started; the same once it is executed anew."""
        raise NotImplementedError

    @dbus_property_async("t")
    def units_load_timestamp_monotonic(self) -> int:
        """When it has last read all unit files: at boot, or at a reload."""
        raise NotImplementedError

    @dbus_property_async("t")
    def units_load_timestamp(self) -> int:
        """The same, as the wall clock was then."""
        raise NotImplementedError

    @dbus_signal_async("uoss")
    def job_removed(self) -> tuple[int, str, str, str]:
        """Signal (id, job, unit, result) to whoever queued the job, subscribed or not."""
        raise NotImplementedError

    @dbus_signal_async("b")
    def reloading(self) -> bool:
        """Signal that all files are about to be read (True), or have been read (False)."""
        raise NotImplementedError

    @dbus_signal_async()
    def unit_files_changed(self) -> None:
        """Signal that something was enabled, disabled, masked or unmasked."""
        raise NotImplementedError


class Unit(DbusInterfaceCommonAsync, interface_name="org.freedesktop.systemd1.Unit"):
    """What every unit has. Times are microseconds, 0 for never."""

    @dbus_property_async("s")
    def id(self) -> str:
        """Its name; that of which it is an alias, if it is one."""
        raise NotImplementedError

    @dbus_property_async("as")
    def names(self) -> list[str]:
        """All its names, aliases too."""
        raise NotImplementedError

    @dbus_property_async("as")
    def triggers(self) -> list[str]:
        """What it starts, where it is a socket, a path or a timer."""
        raise NotImplementedError

    @dbus_property_async("as")
    def slice_of(self) -> list[str]:
        """What systemd knows of that is in this slice, whether it runs or not."""
        raise NotImplementedError

    @dbus_property_async("s")
    def fragment_path(self) -> str:
        """The unit file that was read; empty when there is none."""
        raise NotImplementedError

    @dbus_property_async("b")
    def need_daemon_reload(self) -> bool:
        """Whether its file, its drop-ins or what it was generated from are others than were read."""
        raise NotImplementedError

    @dbus_property_async("s")
    def freezer_state(self) -> str:
        raise NotImplementedError

    @dbus_property_async("s")
    def load_state(self) -> str:
        raise NotImplementedError

    @dbus_property_async("(ss)")
    def load_error(self) -> tuple[str, str]:
        raise NotImplementedError

    @dbus_property_async("as")
    def drop_in_paths(self) -> list[str]:
        """Of every drop-in that is in force, wherever it came from."""
        raise NotImplementedError

    @dbus_property_async("s")
    def active_state(self) -> str:
        raise NotImplementedError

    @dbus_property_async("s")
    def sub_state(self) -> str:
        raise NotImplementedError

    @dbus_property_async("ay", property_name="InvocationID")
    def invocation_id(self) -> bytes:
        """Sixteen bytes, new at each start; empty when it never ran."""
        raise NotImplementedError

    @dbus_property_async("(uo)")
    def job(self) -> tuple[int, str]:
        """Its id is 0 when there is none."""
        raise NotImplementedError

    @dbus_property_async("b")
    def condition_result(self) -> bool:
        raise NotImplementedError

    @dbus_property_async("t")
    def active_enter_timestamp(self) -> int:
        raise NotImplementedError

    @dbus_property_async("t")
    def active_enter_timestamp_monotonic(self) -> int:
        raise NotImplementedError

    @dbus_property_async("t")
    def active_exit_timestamp_monotonic(self) -> int:
        raise NotImplementedError

    @dbus_property_async("t")
    def inactive_exit_timestamp(self) -> int:
        """By the wall clock of then, as the others that do not say otherwise."""
        raise NotImplementedError

    @dbus_property_async("t")
    def inactive_exit_timestamp_monotonic(self) -> int:
        raise NotImplementedError


class Service(DbusInterfaceCommonAsync, interface_name="org.freedesktop.systemd1.Service"):
    """What only services have."""

    @dbus_property_async("s", property_name="Type")
    def type_(self) -> str:
        raise NotImplementedError

    @dbus_property_async("s")
    def result(self) -> str:
        raise NotImplementedError

    @dbus_property_async("u")
    def n_restarts(self) -> int:
        raise NotImplementedError

    @dbus_property_async("t")
    def exec_main_start_timestamp(self) -> int:
        """By the wall clock; microseconds, 0 for never, as with the following."""
        raise NotImplementedError

    @dbus_property_async("t")
    def exec_main_start_timestamp_monotonic(self) -> int:
        raise NotImplementedError

    @dbus_property_async("t")
    def exec_main_exit_timestamp(self) -> int:
        raise NotImplementedError

    @dbus_property_async("i")
    def exec_main_status(self) -> int:
        raise NotImplementedError

    @dbus_property_async("s")
    def slice(self) -> str:
        """In which it is started."""
        raise NotImplementedError

    @dbus_property_async("s")
    def control_group(self) -> str:
        """The path of its own, below its slice's; empty while it has none."""
        raise NotImplementedError

    @dbus_property_async("a(ss)")
    def load_credential(self) -> list[tuple[str, str]]:
        """The credentials that it is loaded with, each by its name and the file that it is read from."""
        raise NotImplementedError


class Timer(DbusInterfaceCommonAsync, interface_name="org.freedesktop.systemd1.Timer"):
    """What only timers have."""

    @dbus_property_async("t", property_name="LastTriggerUSec")
    def last_trigger_us(self) -> int:
        """When it has last elapsed, by the wall clock of then; 0 for never."""
        raise NotImplementedError


def encode_unit_path(name: str) -> str:
    """Return the object path of the unit *name*."""
    return encode_object_path("/org/freedesktop/systemd1/unit", name)


def error_name(error: SdBusBaseError) -> str:
    """Return the D-Bus name of what went wrong; empty for what the library itself found."""
    if isinstance(error, SdBusUnmappedMessageError):
        return str(error.args[0])
    return str(getattr(error, "dbus_error_name", ""))


def to_capability_error(
    error: SdBusBaseError,
    what: str,
    known: Mapping[str, tuple[type[CapabilityError], str]] = _ERRORS,
    other: tuple[type[CapabilityError], str] = (UnitFailed, _LOOK),
) -> CapabilityError:
    """Return *error*, which happened while doing *what*, as one of our errors.

    *known* explains the vendor's errors by the last word of their names, with what to do; *other* is for all
    the rest. They are systemd's unless given.
    """
    name = error_name(error).rpartition(".")[2]
    if not name:
        # The library's own: its connection is at fault, whatever was asked.
        return CapabilityUnavailable(
            f"{what}: the system bus failed ({reason(error)}); it is tried again by itself, and 'systemctl "
            "status dbus' says how the bus is"
        )
    kind, remedy = known.get(name, other)
    return kind(f"{what}: {error.args[-1] if error.args else name}; {remedy}")


def reason(error: SdBusBaseError) -> str:
    """Return what the operating system says of an error that the library itself found."""
    number = _ERROR_NUMBER.search(str(error))
    return os.strerror(int(number[1])) if number else str(error)

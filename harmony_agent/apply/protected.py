"""Which paths and units no Score may change: decided by names alone, whatever is there.

    units        that keep it running: no Score's business   that it is reached by: may be had running
    paths        of the kernel and of running daemons        of the network's configuration
    directories  that came with the system, which needs their mode and owner as they are

The agent's own things are not named here: its policy knows where they are.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from harmony_core.resources import SystemdUnit

__all__ = [
    "KERNEL_PATHS",
    "NETWORK_PATHS",
    "below",
    "inside",
    "is_of_the_system",
    "is_reached_by",
    "keeps_running",
    "only_keeps_up",
    "protected_of_many",
    "unit_of",
]

_KEEP_RUNNING: Final = frozenset(
    {
        *("dbus", "init", "polkit", "basic", "sysinit", "emergency", "rescue"),
        *("exit", "final", "halt", "kexec", "poweroff", "reboot", "shutdown", "soft-reboot"),
        *("hibernate", "hybrid-sleep", "sleep", "suspend", "suspend-then-hibernate", "umount"),
    }
)
_SYSTEMD: Final = ("systemd-", "dbus-")
"""How the names of its own begin; dbus-org.freedesktop.login1 is but another one for systemd-logind."""
_OWN: Final = ("harmony-",)
"""How those of the agent begin: itself, and the jobs that it runs."""
_CAN_BE_DONE_WITHOUT: Final = frozenset(
    f"systemd-{name}"
    for name in ("networkd-wait-online", "oomd", "time-wait-sync", "timesyncd", "zram-setup")
)
_TYPES: Final = frozenset(
    {
        *("service", "socket", "timer", "path", "target", "mount"),
        *("automount", "device", "scope", "slice", "swap"),
    }
)
_REACHED_BY: Final = frozenset(
    {
        *("NetworkManager", "wpa_supplicant", "iwd", "dhcpcd", "networking", "systemd-networkd"),
        *("ssh", "sshd"),
    }
)

_SYSTEM_DIRECTORIES: Final = frozenset(
    {
        *("/bin", "/boot", "/etc", "/home", "/lib", "/media", "/mnt", "/opt", "/root", "/run"),
        *("/sbin", "/srv", "/tmp", "/usr/local", "/var"),  # noqa: S108 - named, not used
        *("/etc/dbus-1", "/etc/dbus-1/system.d", "/etc/pam.d", "/etc/ssh", "/etc/ssl"),
        *("/etc/ssl/certs", "/etc/systemd", "/etc/systemd/system"),
        *("/var/backups", "/var/cache", "/var/lib", "/var/local", "/var/log", "/var/mail"),
        *("/var/opt", "/var/spool", "/var/tmp"),  # noqa: S108 - named, not used
    }
)


def below(*directories: str) -> tuple[str, ...]:
    """What a path in one of *directories*, or the directory itself, with a slash at its end begins with."""
    return tuple(f"{directory.rstrip('/')}/" for directory in directories)


KERNEL_PATHS: Final = below("/proc", "/sys", "/dev", "/run/systemd", "/run/dbus", "/boot/firmware")
NETWORK_PATHS: Final = below(
    *(
        f"{top}/{name}"
        for top in ("/etc", "/run", "/usr/lib", "/var/lib")
        for name in ("NetworkManager", "netplan", "wpa_supplicant", "network", "systemd/network")
    )
)
_UNIT_PATHS: Final = below(
    *(f"{top}/systemd/system" for top in ("/etc", "/usr/lib", "/usr/local/lib"))
)


def inside(path: str, directories: Collection[str]) -> str | None:
    """That of *directories*, as from `below`, in which *path* is, or which it is."""
    beneath = f"{path}/"
    if not beneath.startswith(tuple(directories)):  # as nearly all: at once
        return None
    return next(each.rstrip("/") for each in directories if beneath.startswith(each))


def keeps_running(unit: str) -> bool:
    """Return whether the device cannot do without that unit, or would go down with it."""
    if unit.startswith("-."):
        return True  # the root of all mounts, or of all slices
    stem = _stem(unit)
    if stem in _CAN_BE_DONE_WITHOUT or stem in _REACHED_BY:
        return False
    return stem in _KEEP_RUNNING or stem.startswith(_SYSTEMD)


def protected_of_many(unit: str) -> str | None:
    """Return what, of all the units that drop-ins for *unit* are for, is not a Score's to change.

    None where *unit* is a single one, or all that have its prefix are a Score's. systemd reads the drop-ins
    of ``service.d`` for every service, and those of ``cam-.service.d`` for each whose name begins with cam-.
    """
    if unit in _TYPES:
        return f"every {unit}, also for those that this device needs as they are"
    stem = _stem(unit)
    if not stem.endswith("-"):
        return None
    begins = (*_OWN, *_SYSTEMD, *sorted(_KEEP_RUNNING | _REACHED_BY))
    covered = (each for each in begins if each.startswith(stem))
    within = (stem for each in (*_OWN, *_SYSTEMD) if stem.startswith(each))
    of = next(iter((*covered, *within)), None)
    if of is None:
        return None
    one = f"{of}…" if of.endswith("-") else of
    return f"every unit whose name begins with {stem}, also for {one}, which this device needs as it is"


def is_reached_by(unit: str) -> bool:
    """Return whether the device, or who looks after it by hand, may be cut off without that unit."""
    return _stem(unit) in _REACHED_BY


def only_keeps_up(unit: SystemdUnit) -> bool:
    """Return whether *unit* is wanted enabled or running at most, by its own file, and never restarted."""
    is_left = unit.content is None and not unit.uses
    return is_left and unit.enabled is not False and unit.state != "stopped"


def unit_of(path: str) -> str | None:
    """Return the unit whose file, or drop-in, is at *path*."""
    if (directory := inside(path, _UNIT_PATHS)) is None:
        return None
    return path.removeprefix(f"{directory}/").partition("/")[0].removesuffix(".d")


def is_of_the_system(directory: str) -> bool:
    """Return whether *directory* came with the system, which needs it as it is."""
    if inside(directory, below("/usr")) and not inside(directory, below("/usr/local")):
        return True
    return directory in _SYSTEM_DIRECTORIES


def _stem(unit: str) -> str:
    """``ssh`` of ssh.service and of ssh.socket, ``wpa_supplicant`` of wpa_supplicant@wlan0.service."""
    return unit.rpartition(".")[0].partition("@")[0]

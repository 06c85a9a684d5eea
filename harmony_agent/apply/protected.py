"""Which paths and units are the system's: decided by names alone, whatever is there.

    units        that keep it running: no Score's business   that are only to be had running
    paths        of the kernel, of the network, of accounts, of packages, of containers
    directories  that came with the system, which needs their mode and owner as they are
    mounts       all of these, with whatever root runs, and whatever holds one of them

The agent's own things are not named here: its policy knows where they are. Nor are packages that the device
needs: `harmony_core.needed_packages`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from harmony_core.credentials import CREDENTIALS_DIRECTORY
from harmony_core.resources import SystemdUnit
from harmony_core.run_by_root import place_run_by_root
from harmony_core.unit_paths import path_of_unit

__all__ = [
    "below",
    "find_place",
    "find_unmountable",
    "inside",
    "is_of_the_system",
    "keeps_running",
    "mounted_at",
    "only_keeps_up",
    "protected_of_many",
    "unit_of",
    "why_kept_up",
]

_KEEP_RUNNING: Final = frozenset(
    {
        *("dbus", "init", "polkit", "basic", "sysinit", "emergency", "rescue"),
        *("exit", "final", "halt", "kexec", "poweroff", "reboot", "shutdown", "soft-reboot"),
        *("hibernate", "hybrid-sleep", "sleep", "suspend", "suspend-then-hibernate", "umount"),
        # Other names of these, or begun by a key or the supply of power.
        *("ctrl-alt-del", "kbrequest", "sigpwr", *(f"runlevel{level}" for level in range(7))),
        *("factory-reset", "system-update", "system-update-pre", "system-update-cleanup"),
        *("default", "multi-user", "graphical", "sockets", "timers", "paths", "slices", "swap"),
        *("local-fs", "local-fs-pre", "remote-fs", "remote-fs-pre", "initrd", "time-sync"),
        *("network", "network-pre", "network-online", "nss-lookup", "nss-user-lookup"),
    }
)
_SLICES: Final = frozenset({"system.slice", "user.slice", "machine.slice"})
"""A limit on these is one on every service, the agent too, on whoever logs in, or on every container."""
_WITHIN_SLICES: Final = ("user-", "machine-")
"""How the names of those begin that are within them."""
_OF_A_TEMPLATE: Final = "system-"
"""How the name of the slice of a template's instances begins: system-wpa_supplicant.slice."""
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
_KEPT_UP: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            *("NetworkManager", "wpa_supplicant", "iwd", "dhcpcd", "networking"),
            *("systemd-networkd", "ssh", "sshd"),
        ),
        "this device is reached by",
    ),
    "podman": "the containers of this device are run by",
}
_MOUNT_TYPES: Final = (".mount", ".automount")

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
    """Return what the path of each of *directories*, and of all below it, begins with once a slash is
    added."""
    return tuple(f"{directory.rstrip('/')}/" for directory in directories)


_KERNEL: Final = below("/proc", "/sys", "/dev", "/run/systemd", "/run/dbus", "/run/udev")
_BOOT: Final = below("/boot")
_NETWORK: Final = below(
    *(
        f"{top}/{name}"
        for top in ("/etc", "/run", "/usr/lib", "/var/lib")
        for name in ("NetworkManager", "netplan", "wpa_supplicant", "network", "systemd/network")
    )
)
_ACCOUNTS: Final = below(
    *(
        f"/etc/{name}{backup}"
        for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
        for backup in ("", "-")
    ),
    *("/etc/sudoers", "/etc/sudoers.d", "/etc/sudo.conf", "/etc/doas.conf", "/etc/pam.conf"),
    *("/etc/pam.d", "/etc/security", "/etc/polkit-1", "/etc/dbus-1", "/etc/nsswitch.conf"),
    *("/etc/login.defs", "/var/lib/polkit-1", "/var/lib/sudo", "/var/lib/systemd"),
)
_PACKAGES: Final = below(
    *("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/var/lib/dpkg", "/var/lib/apt"),
    *(f"/usr/{name}" for name in ("bin", "games", "include", "lib", "lib32", "lib64", "libexec")),
    *("/usr/sbin", "/usr/share", "/usr/src"),
)
_CONTAINERS: Final = below(
    *(f"{top}/containers" for top in ("/etc", "/run", "/var/lib")),
    *("/run/podman", "/run/libpod", "/run/crun", "/run/netns", "/etc/cni", "/var/lib/cni"),
    *("/etc/docker", "/run/docker", "/run/docker.sock", "/var/lib/docker"),
    *("/run/containerd", "/var/lib/containerd"),
)
_PLACES: Final[tuple[tuple[tuple[str, ...], str, str], ...]] = (
    (
        _NETWORK,
        "of the network",
        "use a NetworkConfigScore, which takes back what cuts the device off",
    ),
    (_KERNEL, "the system's", "it is not a place for files; choose another path"),
    (_BOOT, "the system's", "use a BootConfigScore, or choose another path"),
    (_ACCOUNTS, "of those who decide who may do what", "use a UserScore, or choose another path"),
    (_PACKAGES, "of Debian's packages", "use a PackageScore, or a path below /usr/local"),
    (_CONTAINERS, "of podman", "use a ContainerScore or a RegistryScore, or choose another path"),
)
_ALL_PLACES: Final = tuple(each for places, _, _ in _PLACES for each in places)

# systemd.unit(5), UnitPath of the system's manager.
_UNIT_PATHS: Final = below(
    *(
        f"{top}/systemd/{name}"
        for top in ("/etc", "/run")
        for name in ("system", "system.control", "system.attached")
    ),
    *(f"/run/systemd/{name}" for name in ("transient", "generator", "generator.early")),
    "/run/systemd/generator.late",
    *(f"{top}/systemd/system" for top in ("/usr/local/lib", "/usr/lib", "/lib")),
)
_ONLY_UNMOUNTABLE: Final = below(
    *("/usr", "/etc/ssh", "/etc/systemd", "/var/spool/cron", "/root", "/run/user"),
    CREDENTIALS_DIRECTORY,
)
_OF_A_UNIT: Final = re.compile(r"\.(?:d|wants|requires|upholds)$")
"""How the name of a directory of a unit's ends."""
_HOLDING: Final = (*_ALL_PLACES, *_UNIT_PATHS, *_ONLY_UNMOUNTABLE)
_HOME: Final = re.compile(r"/home(?:/[^/]+)?")


def inside(path: str, directories: Collection[str]) -> str | None:
    """Return which of *directories*, as `below` returns them, *path* is or is in; None where it is in
    none."""
    beneath = f"{path}/"
    if not beneath.startswith(tuple(directories)):  # as nearly all: at once
        return None
    return next(each.rstrip("/") for each in directories if beneath.startswith(each))


def find_place(path: str) -> tuple[str, str, str] | None:
    """Return the place of the system that contains *path*, whose place it is, and what to do instead."""
    for places, whose, instead in _PLACES:
        if (place := inside(path, places)) is not None:
            return place, whose, instead
    return None


def find_unmountable(source: str) -> str | None:
    """Return the place by which a container that sees *source* would control the device; None where there is
    none.

    *source* is in such a place, is one, or contains one.
    """
    if place := inside(source, _HOLDING) or place_run_by_root(source):
        return place
    holds = any(each.startswith(f"{source.rstrip('/')}/") for each in _HOLDING)
    return source if holds or _HOME.fullmatch(source) else None


def keeps_running(unit: str) -> bool:
    """Return whether the device needs that unit, or stops with it."""
    if unit.startswith("-.") or unit in _SLICES:
        return True  # -. is the root of all mounts, or of all slices
    if unit.endswith(".slice") and unit.startswith(_WITHIN_SLICES):
        return True
    stem = _stem_of_all(unit)
    if stem in _CAN_BE_DONE_WITHOUT or stem in _KEPT_UP:
        return False
    return stem in _KEEP_RUNNING or stem.startswith(_SYSTEMD)


def mounted_at(unit: str) -> str | None:
    """Return where *unit* mounts something; None where it does not. Such units are named after it."""
    return path_of_unit(unit) if unit.endswith(_MOUNT_TYPES) else None


def protected_of_many(unit: str) -> str | None:
    """Return which of all the units that drop-ins for *unit* apply to a Score must not change.

    Return None where *unit* is a single one, or a Score may change all that have its prefix. systemd reads
    the drop-ins of ``service.d`` for every service, and those of ``cam-.service.d`` for each whose name
    begins with cam-.
    """
    if unit in _TYPES:
        return f"every {unit}, also for those that this device needs as they are"
    stem = _stem(unit)
    if not stem.endswith("-"):
        return None
    begins = (*_OWN, *_SYSTEMD, *sorted({*_KEEP_RUNNING, *_KEPT_UP}))
    covered = (each for each in begins if each.startswith(stem))
    within = (stem for each in (*_OWN, *_SYSTEMD) if stem.startswith(each))
    of = next(iter((*covered, *within)), None)
    if of is None:
        return None
    one = f"{of}…" if of.endswith("-") else of
    return f"every unit whose name begins with {stem}, also for {one}, which this device needs as it is"


def why_kept_up(unit: str) -> str | None:
    """Return why this device needs *unit*, which a Score may only have running: without it the device, or who
    looks after it by hand, may be cut off. None where the device does not need it."""
    return _KEPT_UP.get(_stem_of_all(unit))


def only_keeps_up(unit: SystemdUnit) -> bool:
    """Return whether *unit* is at most wanted enabled or running, with its own file, and never restarted."""
    is_left = unit.content is None and not unit.uses
    return is_left and unit.enabled is not False and unit.state != "stopped"


def unit_of(path: str) -> str | None:
    """Return the unit whose file, or drop-in, is at *path*."""
    if (directory := inside(path, _UNIT_PATHS)) is None or path == directory:
        return None
    name = path.removeprefix(f"{directory}/").partition("/")[0]
    return _OF_A_UNIT.sub("", name)


def is_of_the_system(directory: str) -> bool:
    """Return whether *directory* belongs to the operating system, which needs it as it is."""
    if inside(directory, below("/usr")) and not inside(directory, below("/usr/local")):
        return True
    return directory in _SYSTEM_DIRECTORIES or unit_of(f"{directory}/x") == "x"


def _stem_of_all(unit: str) -> str:
    """Return the stem of *unit*, as `_stem` does, and ``wpa_supplicant`` also for
    system-wpa_supplicant.slice, which has its instances."""
    stem = _stem(unit)
    return stem.removeprefix(_OF_A_TEMPLATE) if unit.endswith(".slice") else stem


def _stem(unit: str) -> str:
    """Return ``ssh`` for ssh.service and ssh.socket, ``wpa_supplicant`` for wpa_supplicant@wlan0.service."""
    return unit.rpartition(".")[0].partition("@")[0]

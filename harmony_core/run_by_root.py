"""Paths from which root runs programs, or reads how to run them, without anybody calling them by name.

Whoever writes a file there runs a program as root: at a time (cron), at boot (generators), when anybody logs
in (profile.d), or with any program at all (ld.so.preload). So `File` and `Directory` have the privilege
``run-as-root`` there, as a privileged job has. Unit files are not among them: a unit is managed by its name.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["place_run_by_root"]

_ETC: Final = (
    *(r"cron[^/]*", r"anacrontab", r"at\.(?:allow|deny)", r"init\.d", r"rc\.local", r"rc[0-9S]\.d"),
    *(r"profile", r"profile\.d", r"bash\.bashrc", r"bash_completion\.d", r"zsh", r"environment"),
    *(r"ld\.so\.[^/]+", r"python[^/]*", r"perl", r"gdb", r"update-motd\.d"),
    *(r"logrotate[^/]*", r"modprobe\.d", r"udev", r"tmpfiles\.d", r"sysusers\.d", r"binfmt\.d"),
    *(r"apt", r"dpkg", r"kernel", r"initramfs-tools", r"dhcp", r"dhcpcd[^/]*", r"ppp", r"acpi"),
    r"environment\.d",
)
_SYSTEMD: Final = (
    *(r"[^/]*generators", r"system-(?:shutdown|sleep)", r"user", r"(?:system|user)\.conf(?:\.d)?"),
    r"user\.(?:control|attached)",
)
_PLACE: Final = re.compile(
    rf"(/etc/(?:{'|'.join(_ETC)})"
    rf"|(?:/etc|/run|/usr/lib|/usr/local/lib|/lib)/systemd/(?:{'|'.join(_SYSTEMD)})"
    r"|(?:/run|/usr/lib|/usr/local/lib|/lib)/(?:modprobe\.d|udev|tmpfiles\.d|sysusers\.d|binfmt\.d)"
    r"|/usr/local/lib/python[^/]*"
    r"|/var/spool/(?:cron|at|anacron)"
    r"|/root"
    r"|(?:/.*)?/\.ssh"
    r")(?:/.*)?"
)


def place_run_by_root(path: str) -> str | None:
    """Return the file or directory, *path* or above it, from which root runs programs; None where there is
    none. The same for ``.ssh``: who may log in as somebody is as somebody."""
    found = _PLACE.fullmatch(path)
    return found[1] if found else None

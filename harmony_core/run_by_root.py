"""Paths from which root runs programs, or reads how to run them, without anybody calling them by name.

Whoever writes a file there runs a program as root: at a time (cron), at boot (generators), when anybody logs
in (profile.d), or with any program at all (ld.so.preload). So `File` and `Directory` have the privilege
``run-as-root`` there, as a privileged job has. Unit files are not among them: a unit is managed by its name.
What a Raspberry Pi boots with may have nothing run, or anything: that is told by its text.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["is_harmless_at_boot", "is_read_at_boot", "place_run_by_root"]

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
    none.

    The same counts for ``.ssh``: who may log in as a user can act as that user.
    """
    found = _PLACE.fullmatch(path)
    return found[1] if found else None


_READ_AT_BOOT: Final = frozenset(
    f"{directory}/{name}"
    for directory in ("/boot/firmware", "/boot")
    for name in ("config.txt", "cmdline.txt")
)
_HARMLESS_SETTINGS: Final = (
    *("dtparam", "dtoverlay", "dtdebug", "gpu_mem", "enable_uart", "uart_2ndstage", "arm_boost"),
    *("arm_64bit", "arm_freq", "camera_auto_detect", "display_[a-z0-9_]+", "hdmi_[a-z0-9_:]+"),
    *("disable_[a-z0-9_]+", "max_framebuffers", "framebuffer_[a-z0-9_]+", "sdtv_[a-z0-9_]+"),
    *("otg_mode", "usb_max_current_enable", "max_usb_current", "gpio", "temp_limit", "lcd_rotate"),
)
_HARMLESS_WORDS: Final = (
    *(
        r"quiet",
        r"splash",
        r"logo\.nologo",
        r"rootwait",
        r"cgroup_enable=\S*",
        r"cgroup_memory=\S*",
    ),
    *(r"console=\S*", r"fbcon=\S*", r"video=\S*", r"consoleblank=\S*", r"loglevel=\S*"),
    *(r"usb-storage\.quirks=\S*", r"usbcore\.\w+=\S*", r"vt\.\w+=\S*", r"dwc_otg\.\w+=\S*"),
    r"cfg80211\.ieee80211_regdom=[A-Z0-9]{2}",
    *(r"isolcpus=\S*", r"plymouth\.\S+", r"psi=\S*", r"maxcpus=\S*"),
)
_HARMLESS: Final = re.compile(
    rf"(?:(?:{'|'.join(_HARMLESS_SETTINGS)})=.*|{'|'.join(_HARMLESS_WORDS)}|#.*|)"
)


def is_read_at_boot(path: str) -> bool:
    """Return whether a Raspberry Pi reads the text file at *path* when it boots."""
    return path in _READ_AT_BOOT


def is_harmless_at_boot(text: str) -> bool:
    """Return whether a setting of config.txt, or a word of cmdline.txt, lets nothing else run than before.

    Others name a kernel, another file with settings, or what runs first (``init=``). What is not known to be
    harmless is not harmless.
    """
    return _HARMLESS.fullmatch(text) is not None

"""The units of a mount point, as text: a ``.mount``, and an ``.automount`` where it waits for access."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from harmony_core.resources import MountPoint, SystemdUnit
from harmony_core.unit_paths import unit_of_path
from harmony_core.unit_text import escape_specifiers

__all__ = ["make_automount_unit", "make_mount_unit"]


def make_mount_unit(
    mount: MountPoint, state: Literal["running", "stopped"] | None = None
) -> SystemdUnit:
    """Return the unit that mounts *mount*. Equal mount points give equal units."""
    return SystemdUnit(
        name=mount.unit,
        content="".join(f"{line}\n" for line in _lines(mount)),
        enabled=None if mount.automount else mount.at_boot,
        state=state,
        settle_s=0,
    )


def make_automount_unit(mount: MountPoint) -> SystemdUnit:
    """Return the unit that mounts *mount* when somebody accesses it."""
    lines = [
        "[Unit]",
        f"Description={escape_specifiers(mount.where)}, when it is looked into",
        "[Automount]",
    ]
    lines += [f"Where={escape_specifiers(mount.where)}", *_list_install_lines(mount)]
    return SystemdUnit(
        name=unit_of_path(mount.where, "automount"),
        content="".join(f"{line}\n" for line in lines),
        enabled=mount.at_boot,
        settle_s=0,
    )


def _lines(mount: MountPoint) -> Iterator[str]:
    yield "[Unit]"
    yield f"Description={escape_specifiers(mount.where)}"
    if not mount.over_files:
        # As the agent does: also where a disk is plugged in while the agent does not run.
        yield f"ConditionDirectoryNotEmpty=!{escape_specifiers(mount.where)}"
    if mount.kind_of_source == "device" and "ro" not in mount.options:
        # As pass 2 of fstab has it, once a boot, or after it was plugged in. Only wished for: one that cannot
        # be repaired so is mounted all the same, and kept from being written by the kernel.
        check = f"systemd-fsck@{unit_of_path(mount.source_path, 'service')}"
        yield f"Wants={escape_specifiers(check)}"
        yield f"After={escape_specifiers(check)}"
    yield "[Mount]"
    yield f"What={escape_specifiers(mount.source_path)}"
    yield f"Where={escape_specifiers(mount.where)}"
    if mount.type != "auto":
        yield f"Type={mount.type}"
    options = (*mount.options_in_force, *(("nofail",) if mount.nofail else ()))
    if options:
        yield f"Options={escape_specifiers(','.join(options))}"
    if not mount.automount:
        yield from _list_install_lines(mount)
        if mount.kind_of_source == "device":
            # Whenever it is plugged in, systemd mounts it, without the agent.
            yield f"WantedBy={unit_of_path(mount.source_path, 'device')}"


def _list_install_lines(mount: MountPoint) -> Iterator[str]:
    yield "[Install]"
    target = "remote-fs.target" if mount.is_of_the_network else "local-fs.target"
    yield f"{'WantedBy' if mount.nofail else 'RequiredBy'}={target}"

"""What only a boot brings about: said as Debian's packages say it, so that the device says RebootRequired."""

from __future__ import annotations

__all__ = ["AWAIT_BOOT"]

# $1: what awaits it. $root: as in tests alone, before all paths.
AWAIT_BOOT = """
await_boot() {
    echo "$1" >> "$root/run/reboot-required.pkgs"
    echo "*** System restart required ***" > "$root/run/reboot-required"
}
"""

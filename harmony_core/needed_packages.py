"""Packages that a device cannot do without, or is reached by: no Score takes them away unasked.

Known by their names alone. The policy refuses a Score that wants one of them absent, and what a Score has
installed of them stays when the Score goes.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

__all__ = ["NEEDED_PACKAGES", "is_needed_package"]

NEEDED_PACKAGES: Final = (
    # What it boots with, and finds its root by.
    *("linux-image*", "linux-modules*", "linux-firmware*", "linux-raspi*", "raspi-firmware"),
    *("rpi-eeprom*", "raspberrypi-*", "ubuntu-raspi-*", "firmware-*", "bluez-firmware"),
    *("flash-kernel", "u-boot-*"),
    *("grub-*", "shim-signed*", "initramfs-tools*", "dracut*", "cryptsetup*", "clevis*", "lvm2"),
    *("dmsetup", "mdadm", "e2fsprogs", "dosfstools", "btrfs-progs", "f2fs-tools", "xfsprogs"),
    *("overlayroot", "zfs*", "open-iscsi"),
    # What runs it, and what Harmony runs by.
    *("systemd*", "libsystemd*", "libnss-systemd", "libnss-resolve", "udev", "dbus*", "polkit*"),
    *("policykit-1", "init", "init-system-helpers", "kmod", "python3*", "libpython3*"),
    *("apt", "apt-transport-*", "gpgv", "sqv", "*-archive-keyring", "ca-certificates", "openssl"),
    # By which it knows what time it is: without that no certificate holds.
    *("chrony", "ntp", "ntpsec", "openntpd", "fake-hwclock"),
    # Who may do what.
    *("libpam*", "login", "passwd", "adduser", "sudo", "sudo-*", "opendoas", "sssd*", "libnss-sss"),
    # What it is reached by.
    *("network-manager", "wpasupplicant", "iwd", "iw", "rfkill", "crda", "wireless-regdb"),
    *("rtl*-dkms", "broadcom-sta-*", "dhcpcd*", "isc-dhcp-client*", "udhcpc", "ifupdown*"),
    *("iproute2", "bridge-utils", "vlan", "ifenslave", "resolvconf", "openresolv", "netplan*"),
    *("libnetplan*", "connman", "modemmanager", "usb-modeswitch*", "ppp", "pppoe"),
    *("openssh-*", "dropbear*", "tinysshd", "autossh", "wireguard*", "openvpn*", "strongswan*"),
    *("tailscale", "zerotier-one", "netbird", "nebula", "cloudflared", "rpi-connect*"),
    # What its containers run by.
    *("podman", "netavark", "aardvark-dns", "crun", "runc", "conmon", "catatonit", "passt"),
    *("slirp4netns", "fuse-overlayfs", "uidmap", "containernetworking-*", "nftables", "iptables"),
    "golang-github-containers-*",
)
"""Patterns of their names, which a shell reads alike. What is essential to Debian is for dpkg to say, and it
names its own; what these depend on goes with none of them unnoticed."""


def is_needed_package(name: str) -> bool:
    """Return whether the device, or the people who look after it, need the package *name*."""
    return any(fnmatchcase(name, each) for each in NEEDED_PACKAGES)

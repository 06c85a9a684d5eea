"""Every flag of `podman run`, and of `docker run`, in one of three lists.

A test holds them against all flags there are: `DONE` is read, `REFUSED` says what to do instead, and
`MEANINGLESS` why it has no meaning here, which is said once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from . import readers
from .draft import Reader

__all__ = ["ALIASES", "DONE", "MEANINGLESS", "REFUSED", "SHORT", "SWITCHES"]

_LIMITS = (
    "no field of a container limits it; a service with a unit_file can (IOWeight= and the like)"
)
_OWNERS = "what is mounted belongs to users of the device; leave it out, and set --user"
_REGISTRY = (
    "leave it out, and write login (username, password: ${secret.NAME}) into the Score that is made, or do "
    "`podman login` on the device"
)
_POD = "there are no pods; put the containers on one network (--network NAME), where they find each other"
_CGROUPS = (
    "control groups are podman's to keep; leave it out, and limit by --memory, --cpus, --pids-limit"
)
_STARTUP = "there is no check of the start alone; give --health-start-period"
_OTHER = (
    "it depends on another container that may be made anew; share a volume or a network by name"
)
_PLATFORM = "each device pulls what is for its own processor; leave it out"
_WINDOWS = "it is for Windows; leave it out"
_NO_FIELD = "a container has no field for it; leave it out"
_MADE = "the image says what is in its files; leave it out, or build it into the image"

DONE: Final[Mapping[str, Reader]] = {
    "add-host": readers.add_host,
    "cap-add": readers.capabilities("add_capabilities"),
    "cap-drop": readers.capabilities("drop_capabilities"),
    "cgroupns": readers.heed({"": "", "private": ""}, "a container has control groups of its own"),
    "cgroups": readers.heed(
        dict.fromkeys(("enabled", "no-conmon", "split"), "control groups are podman's to keep"),
        "without control groups nothing is limited; leave it out",
    ),
    "cpu-shares": readers.number("cpu_shares"),
    "cpus": readers.amount("cpus"),
    "cpuset-cpus": readers.text("cpuset"),
    "device": readers.add_device,
    "device-cgroup-rule": readers.each("device_rules"),
    "dns": readers.each("dns"),
    "dns-option": readers.each("dns_options"),
    "dns-search": readers.each("dns_search"),
    "entrypoint": readers.entrypoint,
    "env": readers.environment,
    "env-file": readers.environment_file,
    "group-add": readers.each("groups"),
    "health-cmd": readers.health_command,
    "health-interval": readers.seconds("interval_s"),
    "health-on-failure": readers.heed(
        {"none": ""}, "what is unhealthy is told as a failure, and goes on running; leave it out"
    ),
    "health-retries": readers.no_more_than("retries"),
    "health-start-period": readers.seconds("start_period_s"),
    "health-timeout": readers.seconds("timeout_s"),
    "hostname": readers.text("hostname"),
    "image-volume": readers.heed(
        {"bind": "", "anonymous": ""}, "the image's volumes are kept; name them by --volume"
    ),
    "init": readers.switch("init"),
    "ip": readers.keep("ip"),
    "ip6": readers.keep("ip"),
    "ipc": readers.one_of(
        "ipc",
        {"": "", "private": "", "host": "host", "shareable": "shareable"},
        f"a container has private, shareable or host; {_OTHER}",
    ),
    "label": readers.add_label,
    "log-driver": readers.log_driver,
    "log-opt": readers.log_option,
    "memory": readers.size("memory_bytes"),
    "memory-reservation": readers.size("memory_reservation_bytes"),
    "memory-swap": readers.memory,
    "mount": readers.add_mount,
    "name": readers.name,
    "network": readers.add_network,
    "network-alias": readers.keep("network-alias"),
    "no-healthcheck": readers.keep_switch("no-healthcheck"),
    "pid": readers.one_of(
        "pid", {"": "", "private": "", "host": "host"}, f"a container has private or host; {_OTHER}"
    ),
    "pids-limit": readers.number("pids"),
    "privileged": readers.switch("privileged"),
    "publish": readers.add_ports,
    "read-only": readers.switch("read_only"),
    "read-only-tmpfs": readers.keep_switch("read-only-tmpfs"),
    "restart": readers.restart,
    "sdnotify": readers.heed(
        {
            "conmon": "Harmony looks itself whether it runs",
            "ignore": "Harmony looks itself whether it runs",
            "healthy": "the Score is RUNNING until its check succeeds",
        },
        "a container tells systemd nothing here; give a health check (--health-cmd)",
    ),
    "secret": readers.add_secret,
    "security-opt": readers.security_option,
    "shm-size": readers.size("shm_bytes"),
    "stop-signal": readers.text("stop_signal"),
    "stop-timeout": readers.whole_seconds("stop_timeout_s"),
    "sysctl": readers.pairs("sysctls"),
    "systemd": readers.heed(
        {"true": ""}, "systemd in a container is as podman has it; leave it out"
    ),
    "tmpfs": readers.add_tmpfs,
    "tz": readers.text("timezone"),
    "ulimit": readers.add_ulimit,
    "user": readers.text("user"),
    "userns": readers.heed({"": "", "host": ""}, _OWNERS),
    "uts": readers.heed({"": "", "private": ""}, "a container has a name of its own; leave it out"),
    "volume": readers.add_volume,
    "workdir": readers.text("working_directory"),
}
"""What is read, by the reader of its value."""

REFUSED: Final[Mapping[str, str]] = {
    "annotation": "what podman's runtime reads has no field; use --label where programs read it",
    "arch": _PLATFORM,
    "authfile": _REGISTRY,
    "blkio-weight": _LIMITS,
    "blkio-weight-device": _LIMITS,
    "cert-dir": "leave it out, and give the registry's certificates to a RegistryScore (ca)",
    "cgroup-conf": _CGROUPS,
    "cgroup-parent": _CGROUPS,
    "chrootdirs": _MADE,
    "cpu-count": _WINDOWS,
    "cpu-percent": _WINDOWS,
    "cpu-period": "write --cpus: the quota divided by the period, as in 0.5",
    "cpu-quota": "write --cpus: the quota divided by the period, as in 0.5",
    "cpu-rt-period": _LIMITS,
    "cpu-rt-runtime": _LIMITS,
    "cpuset-mems": "a Pi has one node of memory; leave it out",
    "creds": _REGISTRY,
    "decryption-key": "a device has no keys of images; push the image unencrypted",
    "device-read-bps": _LIMITS,
    "device-read-iops": _LIMITS,
    "device-write-bps": _LIMITS,
    "device-write-iops": _LIMITS,
    "domainname": "put it behind the host's name (--hostname web.example.org)",
    "env-host": "the environment of the device differs from device to device; write each -e NAME=VALUE",
    "env-merge": "what the image has is not known here; write the whole value by -e",
    "gidmap": _OWNERS,
    "gpus": "a Pi has none of these; name its devices below /dev/dri by --device",
    "group-entry": _MADE,
    "health-start-interval": _STARTUP,
    "health-startup-cmd": _STARTUP,
    "health-startup-interval": _STARTUP,
    "health-startup-retries": _STARTUP,
    "health-startup-success": _STARTUP,
    "health-startup-timeout": _STARTUP,
    "hosts-file": "give the lines of /etc/hosts by --add-host",
    "hostuser": "a user of the device is none of the image's; use --user",
    "http-proxy": "write the proxy by -e, as in -e https_proxy=…",
    "init-path": "the small first process is podman's own (catatonit); use --init alone",
    "io-maxbandwidth": _WINDOWS,
    "io-maxiops": _WINDOWS,
    "isolation": _WINDOWS,
    "kernel-memory": "no kernel has it any more; use --memory",
    "label-file": "write its lines by --label",
    "link": "put both on one network (--network NAME), where they find each other by name",
    "link-local-ip": _NO_FIELD,
    "mac-address": _NO_FIELD,
    "memory-swappiness": _NO_FIELD,
    "no-hostname": _NO_FIELD,
    "no-hosts": _NO_FIELD,
    "oom-kill-disable": _NO_FIELD,
    "oom-score-adj": "no field of a container has it; a service with a unit_file can (OOMScoreAdjust=)",
    "os": _PLATFORM,
    "passwd": _MADE,
    "passwd-entry": _MADE,
    "personality": _NO_FIELD,
    "platform": _PLATFORM,
    "pod": _POD,
    "pod-id-file": _POD,
    "preserve-fd": "nothing is handed over that is open; leave it out",
    "preserve-fds": "nothing is handed over that is open; leave it out",
    "publish-all": "podman would choose the device's ports; write each by -p HOST:CONTAINER",
    "rdt-class": "it is for processors of Intel; leave it out",
    "requires": "let it wait by `after` in its entry, once both are imported; leave it out",
    "rootfs": "a container is made of an image; push what is in the directory as one",
    "runtime": "podman's own runtime keeps a container confined; leave it out",
    "seccomp-policy": "Harmony keeps its own profile; leave it out",
    "shm-size-systemd": "systemd in a container is as podman has it; leave it out",
    "storage-opt": _NO_FIELD,
    "subgidname": _OWNERS,
    "subuidname": _OWNERS,
    "timeout": "what is to end by itself is no container that is kept; use a TimerScore",
    "tls-verify": "leave it out, and say it of the registry, in a RegistryScore (insecure: true)",
    "uidmap": _OWNERS,
    "umask": "the program in the image sets it; leave it out",
    "unsetenv": "set it to nothing, as in -e NAME=",
    "unsetenv-all": "set each to nothing, as in -e NAME=",
    "use-api-socket": "whoever may talk to podman is root on the device; leave it out",
    "variant": _PLATFORM,
    "volume-driver": "volumes are podman's own; leave it out",
    "volumes-from": "name the same volumes and directories here by --volume",
}
"""What no Score can say, and what to do instead."""

_TERMINAL = "a container of Harmony's has no terminal"
_BACKGROUND = "Harmony keeps it running in the background"
_REMOVED = "a container is made anew and removed as its Score says"
_FILES = "Harmony knows its containers without such a file"
_PULLED = "an image is pulled once, as what its tag stands for at the push"

MEANINGLESS: Final[Mapping[str, str]] = {
    "attach": _TERMINAL,
    "cidfile": _FILES,
    "conmon-pidfile": _FILES,
    "detach": _BACKGROUND,
    "detach-keys": _TERMINAL,
    "disable-content-trust": "podman heeds it no more",
    "expose": "containers on one network reach every port, and what is published is said by --publish",
    "health-log-destination": "podman keeps the log of checks where it likes",
    "health-max-log-count": "podman keeps the log of checks where it likes",
    "health-max-log-size": "podman keeps the log of checks where it likes",
    "help": "it is read as if it were run",
    "interactive": _TERMINAL,
    "pidfile": _FILES,
    "pull": _PULLED,
    "quiet": _BACKGROUND,
    "replace": _REMOVED,
    "retry": _PULLED,
    "retry-delay": _PULLED,
    "rm": _REMOVED,
    "rmi": _REMOVED,
    "sig-proxy": _TERMINAL,
    "tty": _TERMINAL,
}
"""What changes nothing here, and why."""

SWITCHES: Final = frozenset(
    [
        *(
            "detach",
            "disable-content-trust",
            "env-host",
            "help",
            "http-proxy",
            "init",
            "interactive",
        ),
        *("no-healthcheck", "no-hostname", "no-hosts", "oom-kill-disable", "passwd", "privileged"),
        *("publish-all", "quiet", "read-only", "read-only-tmpfs", "replace", "rm", "rmi", "rootfs"),
        *("sig-proxy", "tls-verify", "tty", "unsetenv-all", "use-api-socket"),
    ]
)
"""Flags whose value is not the next word."""

SHORT: Final[Mapping[str, str]] = {
    "a": "attach",
    "c": "cpu-shares",
    "d": "detach",
    "e": "env",
    "h": "hostname",
    "i": "interactive",
    "l": "label",
    "m": "memory",
    "p": "publish",
    "P": "publish-all",
    "q": "quiet",
    "t": "tty",
    "u": "user",
    "v": "volume",
    "w": "workdir",
}

ALIASES: Final[Mapping[str, str]] = {
    "dns-opt": "dns-option",
    "healthcheck-command": "health-cmd",
    "healthcheck-interval": "health-interval",
    "healthcheck-retries": "health-retries",
    "healthcheck-start-period": "health-start-period",
    "healthcheck-timeout": "health-timeout",
    "net": "network",
    "override-arch": "arch",
    "override-os": "os",
    "override-variant": "variant",
}
"""What podman takes for another, of old."""

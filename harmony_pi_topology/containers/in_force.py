"""Whether podman runs a container with all that was asked for: compared with what it says itself.

    asked, what podman says of what runs -> the fields in which they differ, in words

podman leaves out what the kernel cannot do, such as a limit whose control group is not there, and somebody
may change a limit, a health check or the restarting while the container runs (podman update). What podman
does not say of a container is not here: the access to a device, settings of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import cast

import attrs

from harmony_core.errors import ContainerFailed
from harmony_core.reconciler import Records
from harmony_core.resources import Container, HealthCheck, resource_id, signal_number

from .confinement import list_dropped
from .podman_reply import FoundContainer, InForce, describe_check, describe_secret
from .request import list_check_words
from .secret_store import name_secret

__all__ = ["ContainerShortfalls", "find_unmet", "make_shortfall"]

_NS = 1_000_000_000
_LIMITS = (
    "memory_bytes",
    "memory_reservation_bytes",
    "memory_swap_bytes",
    "cpus",
    "cpu_shares",
    "cpuset",
    "pids",
)
"""What the kernel does by control groups."""

_ALWAYS: Mapping[str, Callable[[Container, InForce], tuple[object, object]]] = {
    "network": lambda c, now: (c.network, now.network or c.network),
    "pid": lambda c, now: (c.pid, now.pid or "private"),
    # Without being asked, podman lets others join, which takes nothing from anybody.
    "ipc": lambda c, now: (
        c.ipc,
        c.ipc if (c.ipc, now.ipc) in {("private", "shareable"), ("private", "")} else now.ipc,
    ),
    "privileged": lambda c, now: (c.privileged, now.privileged),
    "read_only": lambda c, now: (c.read_only, now.read_only),
    # Where it is empty, podman means that it does not.
    "restart": lambda c, now: (c.restart, now.restart or "no"),
    "no_new_privileges": lambda c, now: (c.no_new_privileges, now.no_new_privileges),
    "memory_bytes": lambda c, now: (c.memory_bytes or 0, max(now.memory_bytes, 0)),
    "memory_reservation_bytes": lambda c, now: (
        c.memory_reservation_bytes or 0,
        max(now.memory_reservation_bytes, 0),
    ),
    "cpus": lambda c, now: (round((c.cpus or 0) * _NS) / _NS, now.nano_cpus / _NS),
    "cpu_shares": lambda c, now: (c.cpu_shares or 0, now.cpu_shares),
    "cpuset": lambda c, now: (c.cpuset or "", now.cpuset),
    "log_driver": lambda c, now: (c.log_driver, now.log_driver or c.log_driver),
}
"""What is compared whether it was asked for or not: as asked, and as it is."""

_WHERE_ASKED: Mapping[str, Callable[[Container, InForce], tuple[object, object]]] = {
    "memory_swap_bytes": lambda c, now: (c.memory_swap_bytes, now.memory_swap_bytes),
    "pids": lambda c, now: (c.pids, now.pids),
    "shm_bytes": lambda c, now: (c.shm_bytes, now.shm_bytes),
    "init": lambda c, now: (c.init, now.init),
    "hostname": lambda c, now: (c.hostname, now.hostname),
    "log_tag": lambda c, now: (c.log_tag, now.log_tag),
    "timezone": lambda c, now: (c.timezone, now.timezone),
    "working_directory": lambda c, now: (c.working_directory, now.working_directory),
    "stop_signal": lambda c, now: (
        c.stop_signal,
        c.stop_signal
        if signal_number(c.stop_signal or "") == signal_number(now.stop_signal)
        else now.stop_signal,
    ),
    "ulimits": lambda c, now: (
        {name: (each.soft, each.hard) for name, each in c.ulimits.items()},
        {name: now.ulimits.get(name) for name in c.ulimits},
    ),
    "tmpfs": lambda c, now: (
        {each.target for each in c.tmpfs},
        {each.target for each in c.tmpfs} & now.tmpfs,
    ),
    "dns": lambda c, now: (c.dns, now.dns),
    "dns_search": lambda c, now: (c.dns_search, now.dns_search),
    "dns_options": lambda c, now: (c.dns_options, now.dns_options),
    "extra_hosts": lambda c, now: (
        {f"{name}:{address}" for name, address in c.extra_hosts.items()},
        {*now.extra_hosts},
    ),
    "groups": lambda c, now: ({*c.groups}, {*c.groups} & {*now.groups}),
    # Of those in the environment, podman before 4.4 tells nothing; without one, it starts nothing.
    "secrets": lambda c, now: (
        {
            describe_secret(name_secret(c.name, each.content), each.uid, each.gid, each.mode)
            for each in c.secrets
        },
        now.secrets,
    ),
    "healthcheck": lambda c, now: (_describe_asked(c.healthcheck, now), now.healthcheck),
}


def find_unmet(
    container: Container, found: FoundContainer, devices: Collection[str] = ()
) -> dict[str, str]:
    """Return the fields of *container* that are not in force in *found*, each with a description.

    *devices* are the paths at which the container is to see a device. Where the container does not run,
    nothing is known of them.
    """
    if found.in_force is None or not found.running:
        return {}
    return dict(_differences(container, found.in_force, devices))


def _differences(
    container: Container, now: InForce, devices: Collection[str]
) -> Iterator[tuple[str, str]]:
    asked = {
        name: compare
        for name, compare in _WHERE_ASKED.items()
        if getattr(container, name) not in (None, (), {}, False)
    }
    for name, compare in {**_ALWAYS, **asked}.items():
        wanted, is_so = compare(container, now)
        if wanted != is_so:
            yield name, f"{_shown(is_so)}, not {_shown(wanted)}"
        elif not now.has_control_groups and name in _LIMITS and wanted:
            yield (
                name,
                "not in force, since podman makes no control groups here (cgroups in containers.conf)",
            )
    if container.privileged:
        return
    added = {f"CAP_{each}" for each in container.add_capabilities if each != "ALL"}
    if missing := added - now.capabilities:
        yield "add_capabilities", f"without {_shown(missing)}"
    dropped = {*list_dropped(container)}
    left = now.capabilities - added if "ALL" in dropped else now.capabilities & dropped
    if left:
        yield "drop_capabilities", f"with {_shown(left)}"
    if absent := {*devices} - now.devices:
        yield "devices", f"without {_shown(absent)}"


def _describe_asked(check: HealthCheck | str | None, now: InForce) -> str:
    """Return *check* in words. Nothing is known here of the image's own check."""
    if not isinstance(check, HealthCheck):
        return now.healthcheck
    return describe_check(
        list_check_words(check),
        check.interval_s,
        check.timeout_s,
        check.retries,
        check.start_period_s,
    )


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value)
        return ", ".join(f"{name}: {each}" for name, each in pairs.items())
    if isinstance(value, Collection) and not isinstance(value, str):
        several = cast("Collection[object]", value)
        return ", ".join(sorted(map(str, several))) or "none"
    return str(value) or "none"


def make_shortfall(container: Container, unmet: Mapping[str, str]) -> ContainerFailed:
    """Return the error that reports *unmet*."""
    told = "; ".join(f"{name} is {how}" for name, how in unmet.items())
    remedy = (
        "see what the kernel can do: cat /sys/fs/cgroup/cgroup.controllers. Raspberry Pi OS needs "
        "cgroup_enable=memory in /boot/firmware/cmdline.txt, and a reboot, for limits of memory"
        if unmet.keys() & {*_LIMITS}
        else "look at podman's version and at /etc/containers/containers.conf"
    )
    return ContainerFailed(
        f"container {container.name} runs, but not as asked: {told}; {remedy}, or leave "
        f"{'it' if len(unmet) == 1 else 'them'} out of the Score",
        resource=container.id,
    )


@attrs.define
class ContainerShortfalls:
    """What podman left out when it made a container: that does not get better by making it anew.

    Anything else that is not as asked, somebody else has changed.
    """

    _records: Records

    def find_altered(self, found: FoundContainer, unmet: Mapping[str, str]) -> frozenset[str]:
        """Return the fields of *unmet* that were in force when *found* was made, or were unmet in another
        way."""
        record = self._records.get(_record(found.name))
        if record is None or record["container"] != found.id:
            return frozenset(unmet)
        return frozenset(name for name, how in unmet.items() if record.get(f"field {name}") != how)

    async def record(self, found: FoundContainer, unmet: Mapping[str, str]) -> None:
        """Record that *unmet* was not in force in *found*, which has just been made."""
        if unmet:
            fields = {f"field {name}": how for name, how in unmet.items()}
            await self._records.put(_record(found.name), {"container": found.id, **fields})

    async def forget(self, name: str) -> None:
        """Delete the record of the container *name*, which is gone."""
        await self._records.forget(_record(name))


def _record(name: str) -> str:
    return f"{resource_id(Container.resource_type, name)}#left-out"

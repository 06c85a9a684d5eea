"""Every key of the Compose Specification: what a device does with it, or why it does not.

What is below a key that is refused, or has no meaning here, goes with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from .faults import Faults
from .schema import find_keys
from .tree import YamlMap, dotted

__all__ = [
    "DONE",
    "LOGINS",
    "NO_MEANING",
    "ONE_VALUE",
    "REFUSED",
    "Means",
    "find_meaning",
    "take_out_unmeant",
]

LOGINS = "x-harmony-login"
"""The one key of ours: logins at registries, by registry. The Specification leaves keys with x- to others."""
Means: TypeAlias = Literal["done", "refused", "no meaning"]


def _below(prefix: str, names: str) -> Iterator[str]:
    return (f"{prefix}{name}" for name in names.split())


DONE: frozenset[str] = frozenset(
    [
        *_below("", "name include services networks volumes configs secrets"),
        *_below("include[].", "path env_file project_directory"),
        *_below(
            "services.*.",
            "cap_add cap_drop command configs container_name cpu_shares cpus cpuset depends_on deploy "
            "device_cgroup_rules devices dns dns_opt dns_search entrypoint env_file environment extends "
            "extra_hosts group_add healthcheck hostname image init ipc label_file labels links logging "
            "mem_limit mem_reservation memswap_limit network_mode networks pid pids_limit ports privileged "
            "profiles read_only restart scale secrets security_opt shm_size stop_grace_period stop_signal "
            "sysctls tmpfs ulimits user volumes working_dir",
        ),
        *_below("services.*.configs[].", "source target uid gid mode"),
        *_below("services.*.depends_on.*.", "condition required"),
        *_below("services.*.deploy.", "replicas resources restart_policy"),
        *_below("services.*.deploy.resources.", "limits reservations"),
        *_below("services.*.deploy.resources.limits.", "cpus memory pids"),
        "services.*.deploy.resources.reservations.memory",
        *_below("services.*.deploy.restart_policy.", "condition max_attempts"),
        *_below("services.*.devices[].", "source target permissions"),
        *_below("services.*.env_file[].", "path format required"),
        *_below("services.*.extends.", "service file"),
        *_below("services.*.healthcheck.", "disable interval retries start_period test timeout"),
        *_below("services.*.logging.", "driver options"),
        *_below("services.*.networks.*.", "aliases ipv4_address ipv6_address"),
        *_below("services.*.ports[].", "host_ip target published protocol"),
        *_below("services.*.secrets[].", "source target uid gid mode"),
        *_below("services.*.ulimits.*.", "soft hard"),
        *_below("services.*.volumes[].", "type source target read_only bind tmpfs"),
        *_below("services.*.volumes[].bind.", "create_host_path propagation"),
        *_below("services.*.volumes[].tmpfs.", "size mode"),
        *_below("networks.*.", "name driver ipam external internal enable_ipv4 enable_ipv6 labels"),
        *_below("networks.*.ipam.", "driver config"),
        "networks.*.ipam.config[].subnet",
        *_below("volumes.*.", "name driver external labels"),
        *_below("configs.*.", "content environment file"),
        *_below("secrets.*.", "name external"),
        *_below("networks.*.external.", "name"),
        *_below("volumes.*.external.", "name"),
        *_below("secrets.*.external.", "name"),
    ]
)
"""What is done as it says; where some values cannot be, ``values`` refuses these."""

ONE_VALUE: dict[str, str] = {
    **dict.fromkeys(("services.*.scale", "services.*.deploy.replicas"), "1"),
    "networks.*.driver": "bridge",
    "networks.*.enable_ipv4": "true",
    "networks.*.ipam.driver": "default",
    "volumes.*.driver": "local",
}
"""Of what is done: what says what is so anyway. ``values`` refuses any other value."""

_SWARM = "it is for Swarm; remove it"
_WINDOWS = "it is for Windows; remove it"

REFUSED: dict[str, str] = {
    "models": "no models run on a device; run one in a service of its own",
    "services.*.annotations": "podman is given none; write labels",
    "services.*.blkio_config": "a device does not share its disks out; remove it",
    "services.*.build": "nothing is built on a device; build the image, push it to a registry, name it in "
    "image, and remove build",
    "services.*.cgroup": "each container has a control group of its own; remove it",
    "services.*.cgroup_parent": "each container has a control group of its own; remove it",
    "services.*.cpu_count": _WINDOWS,
    "services.*.cpu_percent": _WINDOWS,
    "services.*.cpu_period": "write cpus, which is cpu_quota divided by cpu_period",
    "services.*.cpu_quota": "write cpus, which is cpu_quota divided by cpu_period",
    "services.*.cpu_rt_period": "a device has no real-time groups; remove it",
    "services.*.cpu_rt_runtime": "a device has no real-time groups; remove it",
    "services.*.credential_spec": _WINDOWS,
    "services.*.deploy.endpoint_mode": _SWARM,
    "services.*.deploy.labels": "they are for Swarm; write labels of the service",
    "services.*.deploy.mode": _SWARM,
    "services.*.deploy.placement": "what a device runs is what is pushed to it; remove it, and "
    "choose devices when you push",
    "services.*.deploy.resources.reservations.devices": "write devices, as in /dev/dri:/dev/dri",
    "services.*.deploy.resources.reservations.generic_resources": _SWARM,
    "services.*.deploy.rollback_config": "it is for Swarm; a Score's policy says when it is rolled back",
    "services.*.deploy.update_config": "it is for Swarm; roll out to a class to update in waves",
    "services.*.domainname": "write the whole name in hostname, as in web.example.org",
    "services.*.external_links": "use a network that both are on, and the other's name there",
    "services.*.gpus": "write devices, as in /dev/dri:/dev/dri",
    "services.*.isolation": _WINDOWS,
    "services.*.mac_address": "podman chooses it; remove it",
    "services.*.mem_swappiness": "a device has none for one container; remove it, or write memswap_limit",
    "services.*.models": "no models run on a device; run one in a service of its own",
    "services.*.networks.*.driver_opts": "podman's bridge takes none; remove them",
    "services.*.networks.*.gw_priority": "podman chooses the way out; set internal on the other networks",
    "services.*.networks.*.interface_name": "podman chooses it; remove it",
    "services.*.networks.*.link_local_ips": "podman sets none; remove them",
    "services.*.networks.*.mac_address": "podman chooses it; remove it",
    "services.*.oom_kill_disable": "a container that is out of memory ends; remove it",
    "services.*.oom_score_adj": "podman is not told it; remove it, and write mem_limit",
    "services.*.post_start": "nothing is run beside; write it into the image's entrypoint",
    "services.*.pre_start": "nothing is run beside; write a service of its own, and wait for it in "
    "depends_on with service_completed_successfully",
    "services.*.pre_stop": "nothing is run beside; have the program do it when it is asked to stop",
    "services.*.provider": "what is no container is not made here; push a Score of its own",
    "services.*.runtime": "containers run by podman's own runtime; remove it",
    "services.*.storage_opt": "podman's storage takes none of one container; remove it",
    "services.*.use_api_socket": "a container is not given podman's socket; remove it",
    "services.*.userns_mode": "root in a container is the device's root, with few capabilities; remove "
    "it, and write user",
    "services.*.uts": "a container has a name of its own; write hostname",
    "services.*.volumes[].bind.recursive": "what is mounted below is seen, too; remove it",
    "services.*.volumes[].image": "an image is not mounted; copy what is needed into an image of your own",
    "services.*.volumes[].volume": "a volume is mounted whole, as podman makes it; remove it, or write the "
    "volume's labels under volumes",
    "services.*.volumes_from": "write the same volumes at each service",
    "networks.*.driver_opts": "podman's bridge is given none; remove them",
    "networks.*.ipam.config[].aux_addresses": "podman keeps none free; remove them",
    "networks.*.ipam.config[].gateway": "it is the first address of the subnet; remove it",
    "networks.*.ipam.config[].ip_range": "podman takes addresses of the whole subnet; remove it, or write a "
    "smaller subnet",
    "networks.*.ipam.options": "podman is given none; remove them",
    "volumes.*.driver_opts": "a volume is a directory that podman keeps; for another one, write its path as "
    "the source: /srv/data:/data",
    "configs.*.external": "a device keeps none that could be used; write content or file in place of this",
    "configs.*.template_driver": _SWARM,
    "secrets.*.file": "what is in it would stand in the manifest, for all who may read that; keep it by "
    "`harmony secret set NAME --file FILE`, and write external: true in place of this",
    "secrets.*.environment": "what is in it would stand in the manifest, for all who may read that; keep it "
    "by `harmony secret set NAME`, and write external: true in place of this",
    "secrets.*.driver": _SWARM,
    "secrets.*.driver_opts": _SWARM,
    "secrets.*.template_driver": _SWARM,
}
"""What cannot be done, and what to do instead."""

_NO_TERMINAL = (
    "nobody is at its terminal; a program that ends without one, as a shell does, ends at once, and without "
    "restart that counts as done"
)

NO_MEANING: dict[str, str] = {
    "version": "compose files have no versions any more",
    "services.*.attach": "nobody is attached; `harmony logs` shows what it writes",
    "services.*.depends_on.*.restart": "a service is not restarted because another one is made anew; its "
    "program is to connect again, or to end where it cannot",
    "services.*.deploy.resources.reservations.cpus": "a device reserves nothing",
    "services.*.deploy.restart_policy.delay": "podman starts it again at once",
    "services.*.deploy.restart_policy.window": "podman counts every start",
    "services.*.develop": "it is for `docker compose watch`",
    "services.*.expose": "containers on one network reach every port of each other",
    "services.*.healthcheck.start_interval": "interval counts from the start on",
    "services.*.networks.*.priority": "podman connects a container to all its networks at once",
    "services.*.platform": "a device fetches the image that is made for it",
    "services.*.ports[].app_protocol": "nothing on a device reads it",
    "services.*.ports[].mode": "one device publishes its own ports",
    "services.*.ports[].name": "nothing on a device reads it",
    "services.*.pull_policy": "an image is fetched when it is pushed anew; its tag is resolved at the push",
    "services.*.pull_refresh_after": "an image is fetched when it is pushed anew",
    "services.*.stdin_open": _NO_TERMINAL,
    "services.*.tty": _NO_TERMINAL,
    "services.*.volumes[].bind.selinux": "a Pi has no SELinux",
    "services.*.volumes[].consistency": "it is for Docker on a Mac",
    "networks.*.attachable": "every container of the device may be on it",
    "configs.*.labels": "a file has none",
    "configs.*.name": "it is a file of this project alone; target says where a service sees it",
    "secrets.*.labels": "a file has none",
}
"""What changes nothing on a device, and why. It is said once of each key, unless that is false."""
_SAID_OF_EACH = frozenset(
    {"services.*.depends_on.*.restart", "services.*.stdin_open", "services.*.tty"}
)
"""What is said of each service that has it, since it may be why that does not do what was meant."""


def find_meaning(key: str) -> list[tuple[Means, str, str]]:
    """Return each list that has *key* or a key above it: what the list means, the key in it, and its
    words."""
    found: list[tuple[Means, str, str]] = []
    if key in DONE:
        found.append(("done", key, ""))
    lists: list[tuple[Means, dict[str, str]]] = [("refused", REFUSED), ("no meaning", NO_MEANING)]
    for means, keys in lists:
        for known, words in keys.items():
            if key == known or key.startswith((f"{known}.", f"{known}[]")):
                found.append((means, known, words))
    return found


def take_out_unmeant(document: YamlMap, faults: Faults) -> None:
    """Remove from *document* the keys that are refused, which are added to *faults*, and those without a
    meaning, which are noted."""
    for key, path, parent in find_keys(document):
        name = str(path[-1])
        place = parent.place_of(name)
        if key in REFUSED:
            faults.add(place, path, REFUSED[key])
        elif key in NO_MEANING and parent[name] is False:
            pass  # as it is on a device
        elif key in NO_MEANING:
            named = dotted(path) if key in _SAID_OF_EACH else key
            told = f"{place.file}:{place.line}: {named} has no meaning here: {NO_MEANING[key]}"
            faults.note(named, told)
        else:
            continue
        del parent[name]

"""A project of Docker Compose as one ComposeScore.

    document, in long form -> the fields of a ComposeScore -> the Score itself, or all that is wrong

What each key becomes stands in `_PLAIN` and in the functions below it. A key that is none of them is refused,
so that nothing is left out without a word; and whatever a container cannot have, its own model refuses, with
the place in the compose file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import attrs
from pydantic import ValidationError

from harmony_control.image_names import with_registry
from harmony_control.push.entries import AnyEntry, Entry
from harmony_core.errors import InvalidScore
from harmony_core.plugins import Registry
from harmony_core.references import (
    find_secrets,
    has_references,
    is_secret_name,
    suggest_secret_name,
)
from harmony_core.resources import Container, all_problems
from harmony_core.wire.manifest import SerializedScore

from .faults import Wrong
from .logins import Logins
from .project import ComposeProject
from .report import Report
from .sources import Mounted, Sources, Spec, Where

__all__ = ["MappedProject", "full_image_name", "map_project"]

KIND = "ComposeScore"


@attrs.frozen
class MappedProject:
    """What a project is on a device."""

    entries: dict[str, AnyEntry]
    notes: tuple[str, ...]
    """What is otherwise than Docker has it, each with its place."""


def map_project(project: ComposeProject, registry: Registry) -> MappedProject:
    """Return *project* as one entry. Raise `ComposeFileError` with everything that a device cannot do."""
    report = Report(project)
    mapping = _Mapping(project, report, Sources(project, report), Logins(project, report))
    spec = mapping.spec()
    report.check()
    score_id = re.sub(r"[^a-z0-9]+", "-", project.name).strip("-")[:63].strip("-")
    try:
        score = registry.decode(SerializedScore(id=score_id, kind=KIND, version=1, spec=spec))
    except InvalidScore as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        for path, told in all_problems(error.__cause__):
            said = told.removeprefix(".".join(map(str, path)) + ": ")
            where, words = mapping.find_place(path, said)
            report.refuse(where, _in_keys(words))
        report.check()
        raise
    return MappedProject({score_id: Entry(score)}, (*project.notes, *report.notes))


def full_image_name(image: str) -> str:
    """Return *image* in full, as Docker understands it: ``nginx`` is ``docker.io/library/nginx:latest``."""
    image = with_registry(image)
    first, _, rest = image.partition("/")
    if first in {"index.docker.io", "registry-1.docker.io"}:
        image = f"docker.io/{rest}"
    elif first == "docker.io" and "/" not in rest:
        image = f"docker.io/library/{rest}"
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"


# --- plain keys: what is said of a service, and the field of a container

_Convert: TypeAlias = Callable[[Any], Any]


def _as_it_is(value: Any) -> Any:
    return value


def _pids(value: int) -> int | None:
    return value if value > 0 else 2**22  # none, which is as many as Linux has


def _capabilities(value: list[str]) -> list[str]:
    return [each.upper().removeprefix("CAP_") for each in value]


_PLAIN: Mapping[str, tuple[str, _Convert]] = {
    "cap_add": ("add_capabilities", _capabilities),
    "cap_drop": ("drop_capabilities", _capabilities),
    "command": ("command", _as_it_is),
    "cpu_shares": ("cpu_shares", _as_it_is),
    "cpus": ("cpus", _as_it_is),
    "cpuset": ("cpuset", _as_it_is),
    "device_cgroup_rules": ("device_rules", _as_it_is),
    "dns": ("dns", _as_it_is),
    "dns_opt": ("dns_options", _as_it_is),
    "dns_search": ("dns_search", _as_it_is),
    "entrypoint": ("entrypoint", _as_it_is),
    "environment": ("environment", _as_it_is),
    "extra_hosts": ("extra_hosts", _as_it_is),
    "group_add": ("groups", _as_it_is),
    "hostname": ("hostname", _as_it_is),
    "image": ("image", full_image_name),
    "init": ("init", _as_it_is),
    "ipc": ("ipc", _as_it_is),
    "labels": ("labels", _as_it_is),
    "mem_limit": ("memory_bytes", _as_it_is),
    "mem_reservation": ("memory_reservation_bytes", _as_it_is),
    "memswap_limit": ("memory_swap_bytes", _as_it_is),
    "network_mode": ("network", _as_it_is),
    "pid": ("pid", _as_it_is),
    "pids_limit": ("pids", _pids),
    "privileged": ("privileged", _as_it_is),
    "read_only": ("read_only", _as_it_is),
    "shm_size": ("shm_bytes", _as_it_is),
    "stop_grace_period": ("stop_timeout_s", math.ceil),
    "stop_signal": ("stop_signal", _as_it_is),
    "sysctls": ("sysctls", _as_it_is),
    "ulimits": ("ulimits", _as_it_is),
    "user": ("user", _as_it_is),
    "working_dir": ("working_directory", _as_it_is),
}
_IN_CLEAR = (
    "a secret stands here in clear for whoever may look at the container; write it into environment, or name "
    "it in secrets, and have the program read it there"
)
_DNS_PORT = 53
_NAME_SERVER = (
    "on all addresses, 53 is also where podman's name server answers containers, and both cannot be had; "
    "name an address of the device, as in 192.168.1.10:53:53, or write network_mode: host"
)
_EMPTY_IS_UNSET = frozenset(
    {"cpu_shares", "cpus", "mem_limit", "mem_reservation", "memswap_limit", "shm_size"}
    | {"cpuset", "hostname", "stop_signal", "user", "working_dir"}
)
"""Where 0, or an empty text, says as much as nothing."""
_OF_ITS_OWN = frozenset(
    {"configs", "container_name", "depends_on", "devices", "healthcheck", "logging", "networks"}
    | {"ports", "restart", "secrets", "security_opt", "tmpfs", "volumes"}
)
_SAID_ELSEWHERE = frozenset({"deploy"})
"""What the reader has written under other keys, too."""
_KEY_OF: Mapping[str, str] = {
    **{field: key for key, (field, _) in _PLAIN.items()},
    **dict.fromkeys(("mounts", "uses", "timezone"), "volumes"),
    "name": "container_name",
    "no_new_privileges": "security_opt",
    **dict.fromkeys(("log_bytes", "log_driver", "log_tag"), "logging"),
    "runs": "restart",
    **{each: each for each in _OF_ITS_OWN},
}
_BELOW: Mapping[str | int, str] = {
    "command": "test",
    "shell": "test",
    "interval_s": "interval",
    "timeout_s": "timeout",
    "start_period_s": "start_period",
}
"""The keys of a healthcheck."""
_FIELD = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")


def _in_keys(told: str) -> str:
    """Return *told* with the keys of compose files, such as mem_limit, instead of a container's fields."""
    return _FIELD.sub(lambda found: _KEY_OF.get(found[0], found[0]), told)


_SECTIONS = frozenset({"name", "services", "networks", "volumes", "configs", "secrets"})
_ACCESS = ("r", "rw", "rwm")
_MODE = 0o444
"""The permissions of configs and secrets, unless something is said of them: all in the container may read."""
_NO_NEW_PRIVILEGES = frozenset({"no-new-privileges", "no-new-privileges:true"})
_SIZE = re.compile(r"([0-9]+)([kmg]?)b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


@attrs.frozen
class _Mapping:
    """One project on its way."""

    project: ComposeProject
    report: Report
    sources: Sources
    logins: Logins
    places: dict[tuple[str | int, ...], Where] = attrs.field(
        factory=dict[tuple[str | int, ...], Where], init=False
    )
    """Where in the project each list's items were said, by their place in the Score."""

    def spec(self) -> Spec:
        """Return the fields of the ComposeScore. Report what is wrong."""
        document = self.project.document
        for section in document.keys() - _SECTIONS:
            if not section.startswith("x-"):
                self.report.refuse((section,), "is not known here; remove it")
        self.sources.declare_volumes(document)
        services = {
            name: self._service(name, said) for name, said in document.get("services", {}).items()
        }
        self._settle_dependencies(services)
        self._note_restarts(services)
        self.logins.note_unused()
        return {
            "services": services,
            "networks": [*self._networks()],
            "volumes": [*self.sources.volumes.values()],
            "files": [*self.sources.files.values()],
        }

    def find_place(self, path: tuple[int | str, ...], told: str) -> tuple[Where, str]:
        """Return the place in the project from which *path* of the Score comes, and *told* without the
        Score's own words."""
        match path:
            case ("services", str(name)):
                field, colon, rest = told.partition(": ")
                if colon and field in _KEY_OF:
                    return ("services", name, _KEY_OF[field]), rest
                return ("services", name), told
            case ("services", str(name), str(field), *below):
                for length in range(len(below), 0, -1):
                    if place := self.places.get((name, field, *below[:length])):
                        return place, told
                inside = (_BELOW.get(each, each) for each in below)
                return ("services", name, _KEY_OF.get(field, field), *inside), told
            case ("networks", int(place), *_):
                return ("networks", [*self._used_networks()][place]), told
            case _:
                return (path[:1] if path and path[0] in _SECTIONS else ()), told

    def _service(self, name: str, said: Mapping[str, Any]) -> Spec:
        path: Where = ("services", name)
        spec: Spec = {"name": said.get("container_name") or f"{self.project.name}-{name}-1"}
        for key, value in said.items():
            if key in _EMPTY_IS_UNSET and not value:
                continue
            if key in _PLAIN:
                field, convert = _PLAIN[key]
                spec[field] = convert(value)
                if (
                    field not in Container.secret_fields
                    and has_references(value)
                    and find_secrets(value)
                ):
                    self.report.refuse((*path, key), _IN_CLEAR)
            elif key not in _OF_ITS_OWN | _SAID_ELSEWHERE and not key.startswith("x-"):
                self.report.refuse((*path, key), "no container on a device has this; remove it")
        if "image" not in spec:
            self.report.refuse(
                path, "has no image; build it, push it to a registry, and name it in image"
            )
            spec["image"] = "docker.io/library/none:latest"
        if (login := self.logins.find_for(spec["image"])) is not None:
            spec["login"] = login
        spec["ports"] = [*self._ports(said, path)]
        self._attach(name, said, spec)
        self._security(said, path, spec)
        self._healthcheck(said.get("healthcheck"), path, spec)
        self._restart(said, path, spec)
        self._logging(said.get("logging") or {}, path, spec)
        self._see(name, said, spec)
        spec["depends_on"] = {
            other: {
                "condition": each.get("condition", "service_started"),
                "required": each.get("required", True),
            }
            for other, each in said.get("depends_on", {}).items()
        }
        return spec

    def _ports(self, said: Mapping[str, Any], path: Where) -> Iterator[Spec]:
        for number, port in enumerate(said.get("ports", ())):
            if not port.get("published"):
                told = f"no port of the device leads to {port['target']}; write it, as in 8080:80"
                self.report.refuse((*path, "ports", number), told)
                continue
            # Docker's word for all IPv4 addresses.
            host_ip = port.get("host_ip", "")
            address = "" if host_ip == "0.0.0.0" else host_ip  # noqa: S104
            if int(port["published"]) == _DNS_PORT and not address and "network_mode" not in said:
                self.report.refuse((*path, "ports", number), _NAME_SERVER)
            yield {
                "host": int(port["published"]),
                "container": port["target"],
                "protocol": port.get("protocol", "tcp"),
                "address": address,
            }

    def _attach(self, name: str, said: Mapping[str, Any], spec: Spec) -> None:
        if "network_mode" in said:
            return
        networks: Mapping[str, Spec | None] = said.get("networks") or {"default": None}
        spec["networks"] = [
            self._attachment(name, key, each or {}) for key, each in networks.items()
        ]
        for number, key in enumerate(networks):
            self.places[name, "networks", number] = ("services", name, "networks", key)

    def _attachment(self, service: str, key: str, said: Spec) -> Spec:
        aliases: list[str] = said.get("aliases") or []
        return {
            "network": self._network_name(key),
            "aliases": list(dict.fromkeys([service, *aliases])),
            "address": said.get("ipv4_address") or said.get("ipv6_address"),
        }

    def _network_name(self, key: str) -> str:
        said = self.sources.declared("networks", key)
        return str(said.get("name") or f"{self.project.name}_{key}")

    def _used_networks(self) -> Iterator[str]:
        """Yield the keys of the networks to create."""
        services = self.project.document.get("services", {}).values()
        used = {
            key
            for each in services
            if "network_mode" not in each
            for key in each.get("networks") or {"default": None}
        }
        declared: Mapping[str, Spec | None] = self.project.document.get("networks", {})
        for key in dict.fromkeys([*declared, "default"]):
            if key in used and not self.sources.declared("networks", key).get("external"):
                yield key

    def _networks(self) -> Iterator[Spec]:
        for key in self._used_networks():
            said = self.sources.declared("networks", key)
            ipam: Spec = said.get("ipam") or {}
            configs: list[Spec] = ipam.get("config") or []
            yield {
                "name": self._network_name(key),
                "subnets": [each["subnet"] for each in configs if "subnet" in each],
                "internal": said.get("internal", False),
                "ipv6": said.get("enable_ipv6", False),
                "labels": said.get("labels", {}),
            }

    def _security(self, said: Mapping[str, Any], path: Where, spec: Spec) -> None:
        for number, option in enumerate(said.get("security_opt", ())):
            if option.replace("=", ":") in _NO_NEW_PRIVILEGES:
                spec["no_new_privileges"] = True
            else:
                told = f"{option!r} is not done; remove it, and name what is needed in cap_add"
                self.report.refuse((*path, "security_opt", number), told)

    def _healthcheck(self, said: Mapping[str, Any] | None, path: Where, spec: Spec) -> None:
        if not said or said.get("disable"):
            return
        test: list[str] = said.get("test") or []
        names = {"interval": "interval_s", "timeout": "timeout_s", "start_period": "start_period_s"}
        # 0 is Docker's word for the default.
        check: Spec = {field: said[key] for key, field in names.items() if said.get(key)}
        for key, field in (("interval", "interval_s"), ("timeout", "timeout_s")):
            if 0 < check.get(field, 1) < 1:
                told = "is shorter than podman can measure; write 1s or more"
                self.report.refuse((*path, "healthcheck", key), told)
                del check[field]
        if said.get("retries"):
            check["retries"] = said["retries"]
        match test:
            case ["NONE", *_]:
                return
            case [] if not check:
                return
            case ["CMD", *words]:
                check["command"] = words
            case ["CMD-SHELL", line]:
                check["shell"] = line
            case _:
                self.report.refuse(
                    (*path, "healthcheck"),
                    "has no test, and the image's own cannot be given other times; write its command as test",
                )
                return
        spec["healthcheck"] = check

    def _restart(self, said: Mapping[str, Any], path: Where, spec: Spec) -> None:
        policy, _, most = str(said.get("restart", "no")).partition(":")
        spec["restart"] = "always" if policy == "unless-stopped" else policy
        if spec["restart"] != "always":
            spec["runs"] = "once"
        if most:
            self.report.note(
                (*path, "restart"),
                f"is on-failure, without {most}: what keeps failing is tried again with growing pauses, "
                "up to 5 min",
            )

    def _logging(self, said: Mapping[str, Any], path: Where, spec: Spec) -> None:
        options: Spec = said.get("options") or {}
        if said.get("driver") == "journald":
            spec["log_driver"] = "journald"
            if tag := options.get("tag"):
                # Docker's template of a name is the one that says nothing new.
                spec["log_tag"] = str(tag).replace("{{.Name}}", spec["name"])
            return
        if (size := options.get("max-size")) is None:
            return
        found = _SIZE.fullmatch(str(size))
        if found is None:
            told = f"{size!r} is no size; write one as in 10m"
            self.report.refuse((*path, "logging", "options", "max-size"), told)
        else:
            spec["log_bytes"] = int(found[1]) * _UNITS[found[2].lower()]

    def _see(self, name: str, said: Mapping[str, Any], spec: Spec) -> None:
        """Add what the service mounts: volumes, tmpfs, devices, configs and secrets."""
        path: Where = ("services", name)
        mounted = Mounted()
        for number, each in enumerate(said.get("volumes", ())):
            self.sources.mount(mounted, each, (*path, "volumes", number))
        for number, each in enumerate(said.get("tmpfs", ())):
            self._tmpfs(mounted, each, (*path, "tmpfs", number))
        for number, each in enumerate(said.get("devices", ())):
            self._device(mounted, each, (*path, "devices", number))
        for section, see in (("configs", self._config), ("secrets", self._secret)):
            for number, each in enumerate(said.get(section, ())):
                try:
                    see(mounted, each, (*path, section, number))
                except Wrong as wrong:
                    self.report.refuse((*path, section, number), wrong.told)
        spec["mounts"], spec["volumes"] = mounted.mounts, mounted.volumes
        spec["tmpfs"], spec["devices"] = mounted.tmpfs, mounted.devices
        spec["secrets"] = mounted.secrets
        spec["uses"] = list(dict.fromkeys(mounted.uses))
        if mounted.timezone is not None:
            spec["timezone"] = mounted.timezone
        for (field, number), place in mounted.places.items():
            self.places[name, field, number] = place

    def _tmpfs(self, mounted: Mounted, text: str, where: Where) -> None:
        target, _, options = text.partition(":")
        spec: Spec = {"target": target}
        for option in filter(None, options.split(",")):
            key, _, value = option.partition("=")
            size = _SIZE.fullmatch(value)
            if key == "size" and size is not None:
                spec["size_bytes"] = int(size[1]) * _UNITS[size[2].lower()]
            elif key == "mode":
                spec["mode"] = value
            elif option not in {"rw", "nosuid", "nodev"}:  # as each is
                told = f"{option!r} is no option here; write size and mode, or remove it"
                self.report.refuse(where, told)
        mounted.add("tmpfs", spec, where)

    def _device(self, mounted: Mounted, said: Mapping[str, Any], where: Where) -> None:
        access = said.get("permissions", "rwm")
        if access not in _ACCESS:
            self.report.refuse(where, f"{access!r} is no access; write r, rw or rwm")
            access = "rw"
        target = said.get("target") or said["source"]
        try:
            self.sources.add_device(mounted, said["source"], target, access, where)
        except Wrong as wrong:
            self.report.refuse(where, wrong.told)

    def _config(self, mounted: Mounted, said: Mapping[str, Any], where: Where) -> None:
        """Keep a config on the device, and mount it in the service. Raise `Wrong` where that is not
        possible."""
        key = said["source"]
        thing = self.sources.declared("configs", key)
        owner, group = str(said.get("uid", "root")), str(said.get("gid", "root"))
        mode: int = said.get("mode", _MODE)
        kept: Spec = {"owner": owner, "group": group, "mode": mode}
        name = f"configs/{key}"
        if (owner, group, mode) != ("root", "root", _MODE):
            name += f"@{owner}.{group}.{mode:04o}"
        if thing.get("content") is not None:
            path = self.sources.keep_file(name, content=str(thing["content"]), **kept)
        elif thing.get("file"):
            file = self.project.directory / thing["file"]
            path = self.sources.push_file(file, name, where, **kept)
        else:
            raise Wrong(f"there is nothing in {key}; write content or file")
        target = said.get("target") or f"/{key}"
        mounted.add("mounts", {"source": path, "target": target, "read_only": True}, where)

    def _secret(self, mounted: Mounted, said: Mapping[str, Any], where: Where) -> None:
        """Mount a secret of the fleet in the service; it is sealed at the push. Raise `Wrong` where that is
        not possible."""
        key = said["source"]
        name = str(self.sources.declared("secrets", key).get("name") or key)
        if not is_secret_name(name):
            like = suggest_secret_name(name)
            raise Wrong(
                f"{name!r} can be no secret's name, which has lower-case letters, digits and ._-; write "
                f"name: {like} at secrets.{key}, and keep it so: harmony secret set {like}"
            )
        secret: Spec = {
            "content": f"${{secret.{name}}}",
            "target": said.get("target") or f"/run/secrets/{key}",
            "mode": f"{said.get('mode', _MODE):04o}",
        }
        for field in ("uid", "gid"):
            number = str(said.get(field, 0))
            if not (number.isascii() and number.isdecimal()):
                raise Wrong(f"{field}: {number!r} is no number; write one, as in 1000")
            secret[field] = int(number)
        mounted.add("secrets", secret, where)

    def _settle_dependencies(self, services: Mapping[str, Spec]) -> None:
        """Use the image's health check where another service waits for a healthy one. Report a service that
        is always restarted although another waits for its end."""
        for name, spec in services.items():
            for other, each in spec["depends_on"].items():
                found = services.get(other)
                if found is None:
                    continue
                if each["condition"] == "service_healthy" and "healthcheck" not in found:
                    if self._has_no_check(other):
                        self.report.refuse(
                            ("services", name, "depends_on", other),
                            f"waits until {other} is healthy, whose healthcheck is disabled; write "
                            "service_started, or enable the check",
                        )
                    found["healthcheck"] = "image"
                if each["condition"] == "service_completed_successfully" and "runs" not in found:
                    self.report.refuse(
                        ("services", other, "restart"),
                        f"{name} waits until it has ended, and so it is always started again; write no, or "
                        "on-failure",
                    )

    def _has_no_check(self, service: str) -> bool:
        """Return whether *service* disables its health check, even that of its image."""
        said: Spec = self.project.document["services"][service].get("healthcheck") or {}
        return bool(said.get("disable")) or (said.get("test") or [""])[0] == "NONE"

    def _note_restarts(self, services: Mapping[str, Spec]) -> None:
        """Note the services that are not restarted although no other service waits for them to end."""
        ends = {
            other
            for spec in services.values()
            for other, each in spec["depends_on"].items()
            if each["condition"] == "service_completed_successfully"
        }
        said = self.project.document.get("services", {})
        for name in services:
            if name not in ends and str(said[name].get("restart", "no")) == "no":
                self.report.note(
                    ("services", name),
                    "has no restart: once it has ended with 0, also as the device is shut down, it is not "
                    "started again; write restart: unless-stopped for what is to run for ever",
                )

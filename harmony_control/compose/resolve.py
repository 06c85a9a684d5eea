"""One project of the merged document: who is there, what each refers to, names, and services' variables.

As `docker compose config` leaves it, without what was only there to be resolved: ``profiles``, ``env_file``,
``label_file``, ``links`` and ``scale``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

import attrs

from harmony_core.close_names import did_you_mean

from .dotenv import WrongLine, read_dotenv, read_raw
from .faults import Faults, shown
from .keys import LOGINS
from .load import Files
from .tree import Path, Place, YamlList, YamlMap, entries

__all__ = ["Resolver"]

_REPLACED_BY = {
    "limits": {"cpus": "cpus", "memory": "mem_limit", "pids": "pids_limit"},
    "reservations": {"memory": "mem_reservation"},
}
_RESTARTS = {"none": "no", "on-failure": "on-failure", "any": "always"}
_NAMESPACES = ("network_mode", "ipc", "pid")


@attrs.frozen
class Resolver:
    """Makes a project of *document*, in place. What is wrong is added to *faults*."""

    document: YamlMap
    name: str
    environment: Mapping[str, str]
    profiles: Collection[str]
    files: Files
    faults: Faults

    def resolve(self) -> None:
        document = self.document
        for key in [key for key in document if key.startswith("x-") and key != LOGINS]:
            del document[key]
        document.put("name", self.name)
        services = self._section("services")
        everyone = set(services)
        self._take_disabled(services)
        if not services and not self.faults.is_below(()):
            place = document.place_of("services")
            why = (
                "all are in other profiles; name one"
                if everyone
                else "write services, with an image each"
            )
            self.faults.add(place, (), f"has no services; {why}")
        for name, service in services.items():
            path = ("services", name)
            self._resolve_service(service, path)
            self._check_dependencies(service, path, set(services), everyone)
        self._check_cycles(services)
        self._check_container_names(services)
        for section in ("networks", "volumes", "configs", "secrets"):
            self._resolve_section(section, services)

    def _section(self, name: str) -> YamlMap:
        found = self.document.get(name)
        if not isinstance(found, YamlMap):
            found = YamlMap(self.document.place_of(name))
        for key in [key for key, each in found.items() if not isinstance(each, YamlMap)]:
            del found[key]  # a fault was told of it
        return found

    def _take_disabled(self, services: YamlMap) -> None:
        for name, service in list(services.items()):
            own = service.pop("profiles", None)
            if own and "*" not in self.profiles and not {*own} & {*self.profiles}:
                del services[name]

    # --- a service

    def _resolve_service(self, service: YamlMap, path: Path) -> None:
        self._resolve_environment(service, path)
        self._resolve_labels(service, path)
        _lift_deploy(service, path, self.faults)
        _take_null(service)
        self._resolve_links(service, path)
        for key in _NAMESPACES:
            kind, _, other = str(service.get(key, "")).partition(":")
            if kind == "service":
                _depend_on(service, other, service.place_of(key))
        if "network_mode" in service and service.get("networks"):
            told = "goes with no network_mode; remove one of them"
            self.faults.add(service.place_of("networks"), (*path, "networks"), told)
        elif "network_mode" not in service and not service.get("networks"):
            networks = YamlMap(service.place)
            networks.put("default", None)
            service.put("networks", networks)
        if "image" not in service and "build" not in service and not self.faults.is_below(path):
            self.faults.add(
                service.place, path, "has no image; write one, as in docker.io/library/nginx:1.29"
            )
        self._check_targets(service, path)
        self._check_extra_hosts(service, path)

    def _resolve_environment(self, service: YamlMap, path: Path) -> None:
        said = service.get("environment")
        own = said if isinstance(said, YamlMap) else YamlMap(service.place_of("environment"))
        found = YamlMap(own.place)
        known = {name: value for name, value in own.items() if value is not None}
        for name, value in self._variables_of(service.pop("env_file", None), known, path).items():
            found.put(name, value, service.place_of("env_file"))
        for name, value in own.items():
            text = self.environment.get(name) if value is None else value
            if text is not None:
                found.put(name, text, own.place_of(name))
            else:
                found.pop(name, None)
        if found or said is not None:
            service.put("environment", found)

    def _variables_of(self, files: Any, own: Mapping[str, str], path: Path) -> dict[str, str]:
        found: dict[str, str] = {}

        def look_up(name: str) -> str | None:
            return self.environment.get(name, own.get(name))

        for number, each, place in entries(files):
            inside = (*path, "env_file", number)
            if "path" not in each:
                continue  # a fault was told of it
            file = FilePath(each["path"])
            if not each.get("required", True) and not self.files.is_there(file, place, inside):
                continue
            form = each.get("format")
            if form not in {None, "raw"}:
                told = f"format {form!r} is unknown; write raw, or leave it out"
                self.faults.add(place, inside, told)
                continue
            if (text := self.files.text(file, place, inside)) is None:
                continue
            note = self.faults.unset_at(Place(shown(file), 1))
            try:
                more = read_raw(text, look_up) if form else read_dotenv(text, look_up, note, found)
            except WrongLine as wrong:
                self.faults.add(Place(shown(file), wrong.line), (), wrong.told)
            else:
                found |= more
        return found

    def _resolve_labels(self, service: YamlMap, path: Path) -> None:
        files = service.pop("label_file", None)
        if not isinstance(files, YamlList):
            return
        found = YamlMap(files.place)
        for number, name, place in entries(files):
            inside = (*path, "label_file", number)
            for label, value in self.files.variables([FilePath(name)], place, {}, inside).items():
                found.put(label, value, place)
        for label, value, place in entries(service.get("labels")):
            found.put(label, value, place)
        service.put("labels", found, files.place)

    def _resolve_links(self, service: YamlMap, path: Path) -> None:
        for number, each, place in entries(service.pop("links", None)):
            name, _, alias = each.partition(":")
            if alias not in {"", name}:
                told = f"write the alias {alias} at {name}, under a network's aliases, and remove the link"
                self.faults.add(place, (*path, "links", number), told)
            _depend_on(service, name, place)

    def _check_targets(self, service: YamlMap, path: Path) -> None:
        seen: dict[str, str] = {}
        for key in ("volumes", "tmpfs", "configs", "secrets"):
            for number, each, place in entries(service.get(key)):
                target = each["target"] if isinstance(each, YamlMap) else each.partition(":")[0]
                if target in seen:
                    told = f"{target} is the target of {seen[target]}, too; give one another target"
                    self.faults.add(place, (*path, key, number), told)
                seen.setdefault(target, key)

    def _check_extra_hosts(self, service: YamlMap, path: Path) -> None:
        for name, each, place in entries(service.get("extra_hosts")):
            addresses = list(dict.fromkeys(each))
            if len(addresses) > 1:
                told = "has several addresses; write one"
                self.faults.add(place, (*path, "extra_hosts", name), told)
            service["extra_hosts"].put(name, addresses[0], place)

    # --- what services are to one another

    def _check_dependencies(
        self, service: YamlMap, path: Path, enabled: set[str], everyone: set[str]
    ) -> None:
        for name, each, place in entries(service.get("depends_on")):
            inside = (*path, "depends_on", name)
            if "condition" not in each:
                told = (
                    "lacks condition; write service_started, service_healthy or "
                    "service_completed_successfully"
                )
                self.faults.add(place, inside, told)
            if name in enabled:
                continue
            if not each.get("required", True):
                service["depends_on"].pop(name)
            elif name in everyone:
                told = "is in no profile that is on; name its profile, or write required: false"
                self.faults.add(place, inside, told)
            elif not self.faults.is_below(("services", name)):
                told = f"there is no such service{did_you_mean(name, everyone) or '; correct its name'}"
                self.faults.add(place, inside, told)

    def _check_cycles(self, services: YamlMap) -> None:
        """Add a fault for services that wait for each other: those left when all that wait for none are
        removed, again and again."""
        waits = {
            name: {*service["depends_on"]} & {*services}
            for name, service in services.items()
            if isinstance(service.get("depends_on"), YamlMap)
        }
        while free := [name for name, others in waits.items() if not others & {*waits}]:
            for name in free:
                del waits[name]
        if waits:
            name = next(iter(_around(waits)))
            service = services[name]
            told = (
                f"waits for itself in the end, by {', '.join(_around(waits))}; remove one of them"
            )
            self.faults.add(service.place_of("depends_on"), ("services", name, "depends_on"), told)

    def _check_container_names(self, services: YamlMap) -> None:
        seen: dict[str, str] = {}
        for name, service in services.items():
            called = service.get("container_name")
            if called in seen:
                told = f"is that of {seen[called]}, too; write another"
                place = service.place_of("container_name")
                self.faults.add(place, ("services", name, "container_name"), told)
            elif called is not None:
                seen[called] = name

    # --- networks, volumes, configs and secrets

    def _resolve_section(self, section: str, services: YamlMap) -> None:
        kind = section.removesuffix("s")
        said = self._section(section)
        used: dict[str, None] = {}
        for path, name, place in _references(section, services):
            if name in said or (section == "networks" and name == "default"):
                used.setdefault(name)
            elif not self.faults.is_below((section, name)):
                hint = did_you_mean(name, said) or f"; write it under {section}"
                self.faults.add(place, path, f"there is no {kind} {name!r}{hint}")
        found = YamlMap(self.document.place_of(section))
        for name in used:
            found.put(name, said.get(name) or YamlMap(said.place), said.place_of(name))
        for name in [name for name in said if name not in used]:
            place = said.place_of(name)
            told = f"{place.file}:{place.line}: {section}.{name}: no service uses it, and it is not made"
            self.faults.note(f"{section}.{name}", told)
        for name, each in found.items():
            self._resolve_thing(each, section, name)
        self.document.pop(section, None)
        if found:
            self.document.put(section, found)

    def _resolve_thing(self, each: YamlMap, section: str, name: str) -> None:
        """Give a network, volume, config or secret its name and its source."""
        is_external = each.get("external") is True
        if "external" in each and not is_external:
            del each["external"]
        if is_external:
            known = {"name", "external"}
            for key in [key for key in each if key not in known and not key.startswith("x-")]:
                told = "what is external is not made here; remove this, or external"
                self.faults.add(each.place_of(key), (section, name, key), told)
        if "name" not in each and section != "configs":
            each.put("name", name if is_external else f"{self.name}_{name}", each.place)
        if section == "secrets" and not is_external and not each.keys() & {"file", "environment"}:
            told = (
                "is from nowhere; write external: true, and keep its value: harmony secret set NAME"
            )
            self.faults.add(each.place, (section, name), told)
        if section == "configs" and not is_external:
            sources = [key for key in ("file", "environment", "content") if key in each]
            if len(sources) != 1 and not self.faults.is_below((section, name)):
                told = "needs one of file, environment or content; write one"
                self.faults.add(each.place, (section, name), told)
            if "environment" in sources:
                self._resolve_variable(each, name)

    def _resolve_variable(self, each: YamlMap, name: str) -> None:
        """Give a config the value of its variable as its content."""
        variable, place = each["environment"], each.place_of("environment")
        if (value := self.environment.get(variable)) is None:
            told = f"the variable {variable} is not set; set it in the environment or in .env"
            self.faults.add(place, ("configs", name, "environment"), told)
        else:
            del each["environment"]
            each.put("content", value, place)


def _around(waits: Mapping[str, set[str]]) -> list[str]:
    """Return services of *waits* that form a cycle: each waits for the next, and the last for the first."""
    way = [next(iter(waits))]
    while True:
        following = next(each for each in sorted(waits[way[-1]]) if each in waits)
        if following in way:
            return way[way.index(following) :]
        way.append(following)


def _take_null(service: YamlMap) -> None:
    """Remove keys without a value, such as an empty ``command:``."""
    for key in [key for key, each in service.items() if each is None or key.startswith("x-")]:
        del service[key]


def _depend_on(service: YamlMap, name: str, place: Place) -> None:
    """Make *service* wait for another one that it uses, unless it states that dependency itself."""
    known = service.get("depends_on")
    depends_on = known if isinstance(known, YamlMap) else YamlMap(place)
    if name not in depends_on:
        below = YamlMap(place)
        for key, value in (("condition", "service_started"), ("required", True)):
            below.put(key, value)
        depends_on.put(name, below, place)
    service.put("depends_on", depends_on, service.place_of("depends_on") if known else place)


def _lift_deploy(service: YamlMap, path: Path, faults: Faults) -> None:
    """Move the settings of ``deploy`` to the service's own keys of the same meaning."""
    deploy = service.get("deploy")
    if not isinstance(deploy, YamlMap):
        return
    resources = deploy.get("resources") or YamlMap(deploy.place)
    lifted: list[tuple[str, Path, Any, Place]] = []
    at: Path
    for part, keys in _REPLACED_BY.items():
        said = resources.get(part) or YamlMap(resources.place)
        for key, other in keys.items():
            if key in said:
                at = ("deploy", "resources", part, key)
                lifted.append((other, at, said[key], said.place_of(key)))
    if "replicas" in deploy:
        at = ("deploy", "replicas")
        lifted.append(("scale", at, deploy["replicas"], deploy.place_of("replicas")))
    for other, at, value, place in lifted:
        if service.get(other, value) != value:
            told = f"differs from {other}; write one of them"
            faults.add(place, (*path, *at), told)
        service.put(other, value, place)
    _lift_restart(service, deploy, path, faults)


def _lift_restart(service: YamlMap, deploy: YamlMap, path: Path, faults: Faults) -> None:
    """Write ``deploy.restart_policy`` as ``restart``. Where both are given, they must agree."""
    inside = (*path, "deploy", "restart_policy")
    policy = deploy.get("restart_policy")
    if not isinstance(policy, YamlMap):
        return
    condition = str(policy.get("condition", "any"))
    if condition not in _RESTARTS:
        told = f"is none of {', '.join(_RESTARTS)}; write one of them"
        faults.add(policy.place_of("condition"), (*inside, "condition"), told)
        return
    most = f":{policy['max_attempts']}" if "max_attempts" in policy else ""
    restart = _RESTARTS[condition] + (most if condition == "on-failure" else "")
    said = service.get("restart")
    if said is None:
        service.put("restart", restart, policy.place_of("condition"))
    elif ("always" if said == "unless-stopped" else str(said)) != restart:
        told = f"is {restart}, which differs from restart; write one of them"
        faults.add(deploy.place_of("restart_policy"), inside, told)


def _references(section: str, services: YamlMap) -> Iterator[tuple[Path, str, Place]]:
    """Yield every name of *section* that a service uses."""
    for name, service in services.items():
        used = service.get(section)
        path = ("services", name, section)
        for part, each, place in entries(used):
            if isinstance(used, YamlMap):
                yield (*path, part), part, place
            elif (section != "volumes" or each["type"] == "volume") and each.get("source"):
                yield (*path, part), each["source"], place

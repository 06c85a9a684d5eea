"""Values of keys that are done, which no container of Harmony can have: each is refused, with a remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from .faults import Faults
from .tree import Path, Place, YamlMap, entries

__all__ = ["refuse_values"]

_Problem: TypeAlias = tuple[Path, Place, str]
_LOG_DRIVERS = {"json-file", "local", "journald", "k8s-file"}
_LOG_OPTIONS = {"max-size"}
_JOURNAL_OPTIONS = {"tag"}
_PROPAGATIONS = {"rprivate", "rslave", "rshared"}


def refuse_values(document: YamlMap, faults: Faults) -> None:
    """Add to *faults* the values that no container, network or volume of a device can have."""
    services = document.get("services")
    for name, service, _ in entries(services):
        for key, check in _SERVICE.items():
            if key not in service:
                continue
            for path, place, told in check(service[key], service.place_of(key)):
                faults.add(place, ("services", name, key, *path), told)
        _note_logging(service, faults)
    for section, checks in _THINGS.items():
        things = document.get(section)
        for name, thing, _ in entries(things):
            for key, check in checks.items():
                if key not in thing:
                    continue
                for path, place, told in check(thing[key], thing.place_of(key)):
                    faults.add(place, (section, name, key, *path), told)


_Check: TypeAlias = Callable[[Any, Place], Iterator[_Problem]]


def _one_of(values: set[Any], remedy: str) -> _Check:
    def check(value: Any, place: Place) -> Iterator[_Problem]:
        if value not in values:
            yield (), place, f"{value!r} is not done; {remedy}"

    return check


def _scale(value: Any, place: Place) -> Iterator[_Problem]:
    if value == 0:
        yield (), place, "0 is none of it; remove the service, or write profiles"
    elif value != 1:
        yield (
            (),
            place,
            "a device runs one of each; write a service for each, or push to more devices",
        )


def _network_mode(value: Any, place: Place) -> Iterator[_Problem]:
    kind, _, other = str(value).partition(":")
    if kind in {"service", "container"}:
        told = (
            "a container has a network of its own; write network_mode: host at both, or have both on "
            f"one network and reach {other or 'the other'} by its name"
        )
        yield (), place, told
    elif value not in {"bridge", "host", "none"}:
        yield (), place, f"{value!r} is not done; write bridge, host or none, or networks"


def _restart(value: Any, place: Place) -> Iterator[_Problem]:
    if re.fullmatch(r"no|always|unless-stopped|on-failure(:[0-9]{1,9})?", str(value)) is None:
        yield (), place, f"{value!r} is no rule; write no, always, unless-stopped or on-failure"


def _ports(value: Any, _place: Place) -> Iterator[_Problem]:
    for number, each, place in entries(value):
        if "published" not in each:
            port = each["target"]
            yield (
                (number,),
                place,
                f"no port of the device leads to {port}; write it, as in {port}:{port}",
            )
        if each["protocol"] not in {"tcp", "udp"}:
            yield (number,), place, f"{each['protocol']!r} is not published; write tcp or udp"


def _volumes(value: Any, _place: Place) -> Iterator[_Problem]:
    for number, each, place in entries(value):
        path = (number,)
        if each["type"] not in {"bind", "volume", "tmpfs"}:
            yield path, place, f"{each['type']!r} is not mounted; write bind, volume or tmpfs"
        elif each["type"] == "volume" and not each.get("source"):
            yield (
                path,
                place,
                "has no name, so that its data would be nobody's; write NAME:TARGET, and NAME under volumes",
            )
        for key in ("bind", "tmpfs"):
            if key in each and each["type"] != key:
                yield (*path, key), each.place_of(key), f"goes with type: {key}; remove one of them"
        propagation = each.get("bind", {}).get("propagation", "rprivate")
        if propagation not in _PROPAGATIONS:
            told = f"{propagation!r} is not done; write r{propagation}"
            yield (*path, "bind", "propagation"), each["bind"].place_of("propagation"), told


def _devices(value: Any, _place: Place) -> Iterator[_Problem]:
    for number, each, place in entries(value):
        if not each["source"].startswith("/dev/"):
            yield (number,), place, f"{each['source']} is not below /dev; write a device that is"


def _security_opt(value: Any, _place: Place) -> Iterator[_Problem]:
    for number, each, place in entries(value):
        if each not in {"no-new-privileges:true", "no-new-privileges=true", "no-new-privileges"}:
            told = f"{each!r} is not done; remove it, and name what is needed in cap_add"
            yield (number,), place, told


def _networks(value: Any, _place: Place) -> Iterator[_Problem]:
    for name, each in value.items():
        if isinstance(each, YamlMap) and {"ipv4_address", "ipv6_address"} <= {*each}:
            told = "a container has one fixed address on a network; remove ipv4_address or ipv6_address"
            yield (name,), value.place_of(name), told


def _logging(value: Any, place: Place) -> Iterator[_Problem]:
    driver = value.get("driver", "json-file")
    if driver not in _LOG_DRIVERS:
        told = f"{driver!r} is not done; write json-file, and read it by `harmony logs`"
        yield ("driver",), value.places.get("driver", place), told
    if driver != "journald":
        return
    for name, _, option in entries(value.get("options")):
        if name == "max-size":
            told = (
                "the journal has limits of its own, for all in it (SystemMaxUse= in journald.conf)"
            )
        elif name not in _JOURNAL_OPTIONS:
            told = "podman has no such option of journald"
        else:
            continue
        yield ("options", name), option, f"{told}; remove it"


def _note_logging(service: YamlMap, faults: Faults) -> None:
    """Note, and remove, the logging options that podman's own log files do not support."""
    logging = service.get("logging")
    if not isinstance(logging, YamlMap) or logging.get("driver") == "journald":
        return
    options = logging.get("options")
    for name, _, place in entries(options):
        if name not in _LOG_OPTIONS:
            told = (
                f"{place.file}:{place.line}: the logging option {name} has no meaning here: podman keeps "
                "one file, and begins it anew"
            )
            faults.note(f"logging.options.{name}", told)
            service["logging"]["options"].pop(name)


def _ipam_driver(value: Any, place: Place) -> Iterator[_Problem]:
    driver = value.get("driver", "default")
    if driver != "default":
        yield ("driver",), value.places.get("driver", place), f"{driver!r} is not done; remove it"


_ENABLED = _one_of({True}, "remove it: a network has IPv4")
_SERVICE: dict[str, _Check] = {
    "devices": _devices,
    "ipc": _one_of({"host", "private", "shareable"}, "write host, private or shareable"),
    "logging": _logging,
    "network_mode": _network_mode,
    "networks": _networks,
    "pid": _one_of({"host", "private"}, "write host, or remove it"),
    "ports": _ports,
    "restart": _restart,
    "scale": _scale,
    "security_opt": _security_opt,
    "volumes": _volumes,
}
_THINGS: dict[str, dict[str, _Check]] = {
    "networks": {
        "driver": _one_of(
            {"bridge", "default"}, "write bridge; for the device's own network, network_mode: host"
        ),
        "enable_ipv4": _ENABLED,
        "ipam": _ipam_driver,
    },
    "volumes": {
        "driver": _one_of({"local"}, "write local, or a path as the source: /srv/data:/data")
    },
}

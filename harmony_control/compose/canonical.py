"""The long form of everything that compose files have in short: what `docker compose config` prints.

One document of one file becomes so, before it is merged with others: paths are absolute, times are seconds
and sizes bytes, ranges of ports are one port each. It is as the schema says, save that an item of a list may
be None where something was wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from os.path import normpath
from pathlib import Path as FilePath
from typing import Any, TypeAlias

import attrs

from .amounts import parse_bytes, parse_seconds
from .faults import Faults, Wrong
from .local import LocalPath
from .mounts import split_volume
from .ports import expand_port
from .tree import Path, Place, YamlList, YamlMap, entries
from .words import split_words

__all__ = ["Base", "canonicalise"]


@attrs.frozen
class Base:
    """What relative paths of a file are relative to, and whose home ``~`` is."""

    directory: FilePath
    home: str | None

    def absolute(self, path: str) -> str:
        """Return *path* as an absolute path. Raise `Wrong` where it is in the home of an unknown user."""
        if path == "~" or path.startswith("~/"):
            if self.home is None:
                raise Wrong("~ is no path, since HOME is not set; write the whole path")
            path = self.home + path[1:]
        if re.match(r"[A-Za-z]:[\\/]|\\\\", path):
            raise Wrong("is a path of Windows; write one of the device, as in /srv/data")
        return normpath(self.directory / path)


@attrs.frozen
class _At:
    """Where a value stands, for those that look at it."""

    path: Path
    place: Place
    base: Base
    faults: Faults


_Form: TypeAlias = Callable[[Any, _At], Any]
"""Return the long form of a value; `Wrong` says what cannot be read."""


def canonicalise(document: YamlMap, base: Base, faults: Faults) -> None:
    """Give *document* the long form. Add to *faults* what is wrong, and remove it."""
    _of_map(_DOCUMENT)(document, _At((), document.place, base, faults))


# --- forms of forms


def _of_map(forms: Mapping[str, _Form]) -> _Form:
    """Return the form of a mapping with these keys. ``*`` stands for every other key."""

    def form(value: Any, at: _At) -> Any:
        if not isinstance(value, YamlMap):
            return value
        for key in list(value):
            below = forms.get(key) or forms.get("*")
            if below is None or key.startswith("x-"):
                continue
            inside = _At((*at.path, key), value.place_of(key), at.base, at.faults)
            try:
                value.put(key, below(value[key], inside))
            except Wrong as wrong:
                at.faults.add(inside.place, inside.path, wrong.told)
                del value[key]
        return value

    return form


def _of_list(*forms: _Form) -> _Form:
    """Return the form of a list to whose items all these forms are applied, one after the other. One item may
    become several."""

    def form(value: Any, at: _At) -> Any:
        given = value if isinstance(value, YamlList) else YamlList(at.place, [(value, at.place)])
        found = YamlList(given.place)
        for number, (item, place) in enumerate(given.items()):
            inside = _At((*at.path, number), place, at.base, at.faults)
            if item is None:
                continue
            try:
                for each in forms:
                    item = each(item, inside)  # noqa: PLW2901 - one form after the other
            except Wrong as wrong:
                at.faults.add(place, inside.path, wrong.told)
                continue
            for each in item if isinstance(item, _Several) else (item,):
                if each not in found:
                    found.add(each, place)
        return found

    return form


class _Several(tuple[Any, ...]):
    """What one item of a list stands for."""

    __slots__ = ()


def _or_nothing(form: _Form) -> _Form:
    return lambda value, at: None if value is None else form(value, at)


# --- single values


def _text(value: Any, _at: _At) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


_TRUE = {"true", "y", "yes", "on"}
_FALSE = {"false", "n", "no", "off"}


def _boolean(value: Any, _at: _At) -> bool:
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    if not isinstance(value, bool):
        raise Wrong(f"{value!r} is not true or false; write one of them")
    return value


def _integer(value: Any, _at: _At) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int):
        return value
    if re.fullmatch(r"[-+]?[0-9]{1,19}", str(value)) is None:
        raise Wrong(f"{value!r} is no whole number; write one")
    return int(value)


def _number(value: Any, _at: _At) -> float:
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]{0,19}(\.[0-9]{1,19})?", value) is None:
        raise Wrong(f"{value!r} is no number; write one as in 1.5")
    try:
        return float(value)
    except ValueError:
        raise Wrong(f"{value!r} is no number; write one as in 1.5") from None


def _bytes(value: Any, _at: _At) -> int:
    return parse_bytes(value)


def _seconds(value: Any, _at: _At) -> float:
    return parse_seconds(value)


def _path(value: Any, at: _At) -> str:
    return at.base.absolute(str(value))


def _mode(value: Any, _at: _At) -> int:
    """Return permission bits: a number as it is, a text as octal digits."""
    if isinstance(value, int):
        return value
    if re.fullmatch(r"(0o)?[0-7]{1,5}", str(value)) is None:
        raise Wrong(f'{value!r} is no file mode; write octal digits in quotes, as in "0440"')
    return int(str(value), 8)


# --- short forms


def _words(value: Any, at: _At) -> Any:
    if value is None:
        return None
    if isinstance(value, str):
        return YamlList(at.place, ((each, at.place) for each in split_words(value)))
    return _of_list_as_it_is(value)


def _of_list_as_it_is(value: YamlList) -> YamlList:
    """Return *value* without what was wrong in it. Keep duplicates: these are arguments."""
    return YamlList(
        value.place, ((each, place) for each, place in value.items() if each is not None)
    )


def _test(value: Any, at: _At) -> YamlList:
    if isinstance(value, str):
        return YamlList(at.place, [("CMD-SHELL", at.place), (value, at.place)])
    found = _of_list_as_it_is(value)
    if found and found[0] not in {"CMD", "CMD-SHELL", "NONE"}:
        raise Wrong(f"begins with {found[0]!r}; begin with CMD, CMD-SHELL or NONE")
    if not found or (found[0] != "NONE" and not "".join(found[1:])):
        raise Wrong('has no command; write one, as in ["CMD", "curl", "-f", "http://localhost"]')
    if found[0] == "CMD-SHELL" and len(found) > 2:
        raise Wrong("CMD-SHELL takes one line; write CMD for a list of arguments")
    return found


def _pairs(separators: str, unset: str | None) -> _Form:
    """Return the form of ``NAME=value`` in a list or a mapping. *unset* is the value for a name alone."""

    def form(value: Any, at: _At) -> YamlMap:
        found = YamlMap(value.place)
        if isinstance(value, YamlMap):
            for name, each in value.items():
                text = unset if each is None else _text(each, at)
                found.put(name, text, value.place_of(name))
            found.resets, found.overrides = value.resets, value.overrides
            return found
        for number, (item, place) in enumerate(value.items()):
            if item is None:
                continue
            at_separator = min((item.find(each) for each in separators if each in item), default=-1)
            name = item if at_separator < 0 else item[:at_separator]
            if not name:
                told = f"{item!r} has no name; write NAME{separators[0]}VALUE"
                at.faults.add(place, (*at.path, number), told)
                continue
            found.put(name, unset if at_separator < 0 else item[at_separator + 1 :], place)
        return found

    return form


def _hosts(value: Any, at: _At) -> YamlMap:
    """Return the addresses of each host name."""
    found = YamlMap(value.place)
    items: list[tuple[str, Any, Place]] = (
        entries(value)
        if isinstance(value, YamlMap)
        else [(*_split_host(item), place) for item, place in value.items() if item is not None]
    )
    for name, given, place in items:
        addresses = given if isinstance(given, YamlList) else str(given or "").split(",")
        if not name or not addresses or not all(addresses):
            at.faults.add(place, at.path, f"{name!r} has no address; write NAME=ADDRESS")
            continue
        known: YamlList = found.get(name) or YamlList(place)
        for each in addresses:
            known.add(re.sub(r"^\[(.*)\]$", r"\1", str(each)), place)
        found.put(name, known, place)
    if isinstance(value, YamlMap):
        found.resets, found.overrides = value.resets, value.overrides
    return found


def _split_host(item: str) -> tuple[str, str]:
    separator = "=" if "=" in item else ":"
    name, _, address = item.partition(separator)
    return name, address


def _names(value: Any, _at: _At) -> YamlMap:
    """Return a mapping for what may be a list of names."""
    if isinstance(value, YamlMap):
        return value
    found = YamlMap(value.place)
    for item, place in value.items():
        if item is not None:
            found.put(item, None, place)
    return found


def _dependencies(value: Any, at: _At) -> YamlMap:
    found = _names(value, at)
    for name, each in list(found.items()):
        place = found.place_of(name)
        below = each if isinstance(each, YamlMap) else YamlMap(place)
        if each is None:
            below.put("condition", "service_started")
        if "required" not in below:
            below.put("required", True)
        found.put(name, below)
    return found


def _env_file(value: Any, at: _At) -> YamlMap:
    found = _long(value, at, "path")
    found.setdefault("required", True)
    return found


def _long(value: Any, at: _At, key: str) -> YamlMap:
    if isinstance(value, YamlMap):
        return value
    found = YamlMap(at.place)
    found.put(key, value)
    return found


def _port(value: Any, at: _At) -> _Several:
    found: list[YamlMap] = []
    for each in expand_port(value):
        port = YamlMap(value.place if isinstance(value, YamlMap) else at.place)
        for key, part in each.items():
            port.put(key, part, value.place_of(key) if isinstance(value, YamlMap) else at.place)
        found.append(port)
    return _Several(found)


def _volume(value: Any, at: _At) -> YamlMap:
    if isinstance(value, YamlMap):
        found = value
    else:
        found = YamlMap(at.place)
        says, options = split_volume(value)
        for key, part in says.items():
            found.put(key, part)
        if options:
            below = YamlMap(at.place)
            for key, part in options.items():
                below.put(key, part)
            found.put(found["type"], below)
    if not found.get("target"):
        raise Wrong("has no target; write where the container is to see it")
    found.put("target", normpath(found["target"]))
    if found["type"] == "bind":
        if not found.get("source"):
            raise Wrong("has no source; write the path that the container is to see")
        if not found["source"].startswith("/"):
            found.put("source", LocalPath(at.base.absolute(found["source"])))
        else:
            found.put("source", normpath(found["source"]))
    return found


_PERMISSIONS = re.compile(r"r?w?m?")


def _device(value: Any, at: _At) -> YamlMap:
    found = _long(value, at, "source")
    if not isinstance(value, YamlMap):
        parts = str(value).split(":")
        if len(parts) > 3 or not parts[0]:
            raise Wrong("is no device; write SOURCE:TARGET:PERMISSIONS")
        # A CDI device has no path: nvidia.com/gpu=all.
        found.put("source", parts[0])
        if len(parts) == 2 and _PERMISSIONS.fullmatch(parts[1]):
            parts[1:] = [parts[0], parts[1]]
        for key, part in zip(("target", "permissions"), parts[1:], strict=False):
            found.put(key, part)
    found.put("target", found.get("target") or found["source"])
    found.put("permissions", found.get("permissions") or "rwm")
    return found


def _file_mount(directory: str) -> _Form:
    """Return the form of a config or secret in a service, mounted in *directory* unless it names another
    path."""

    def form(value: Any, at: _At) -> YamlMap:
        found = _long(value, at, "source")
        if not found.get("source"):
            raise Wrong("has no source; write its name")
        target = str(found.get("target") or found["source"])
        found.put("target", target if target.startswith("/") else f"{directory}/{target}")
        return found

    return form


def _ulimit(value: Any, at: _At) -> YamlMap:
    if isinstance(value, YamlMap):
        return value
    found = YamlMap(at.place)
    for key in ("soft", "hard"):
        found.put(key, _integer(value, at))
    return found


def _external(value: Any, at: _At) -> Any:
    """Return a volume, network, config or secret, with ``external`` as true or false."""
    if value is None:
        return YamlMap(at.place)
    external = value.get("external")
    if isinstance(external, YamlMap):
        value.put("external", True)
        if (name := external.get("name")) is not None:
            if value.get("name") not in {None, name}:
                raise Wrong("name and external.name differ; write name alone")
            value.put("name", name, external.place_of("name"))
    return value


def _extends(value: Any, at: _At) -> YamlMap:
    return _long(value, at, "service")


# --- the document

_TEXTS = _of_list(_text)
_NUMBERED = _of_map({"soft": _integer, "hard": _integer})
_RESOURCES = _of_map({"cpus": _number, "memory": _bytes, "pids": _integer})

_SERVICE: dict[str, _Form] = {
    "cap_add": _TEXTS,
    "cap_drop": _TEXTS,
    "command": _words,
    "configs": _of_list(_file_mount(""), _of_map({"mode": _mode})),
    "cpu_shares": _integer,
    "cpus": _number,
    "depends_on": lambda value, at: _of_map(
        {"*": _of_map({"required": _boolean, "restart": _boolean})}
    )(_dependencies(value, at), at),
    "deploy": _or_nothing(
        _of_map(
            {
                "replicas": _integer,
                "resources": _of_map({"limits": _RESOURCES, "reservations": _RESOURCES}),
                "restart_policy": _of_map({"max_attempts": _integer}),
            }
        )
    ),
    "device_cgroup_rules": _TEXTS,
    "devices": _of_list(_device),
    "dns": _TEXTS,
    "dns_opt": _TEXTS,
    "dns_search": _TEXTS,
    "entrypoint": _words,
    "env_file": _of_list(_env_file, _of_map({"path": _path, "required": _boolean})),
    "environment": _pairs("=", None),
    "extends": _extends,
    "extra_hosts": _hosts,
    "group_add": _TEXTS,
    "healthcheck": _of_map(
        {
            "disable": _boolean,
            "interval": _seconds,
            "retries": _integer,
            "start_period": _seconds,
            "test": _test,
            "timeout": _seconds,
        }
    ),
    "init": _boolean,
    "label_file": _of_list(_path),
    "labels": _pairs("=", ""),
    "links": _TEXTS,
    "logging": _of_map(
        {"options": _of_map({"*": lambda value, at: _text("" if value is None else value, at)})}
    ),
    "mem_limit": _bytes,
    "mem_reservation": _bytes,
    "memswap_limit": _bytes,
    "networks": lambda value, at: _of_map({"*": _or_nothing(_of_map({"aliases": _TEXTS}))})(
        _names(value, at), at
    ),
    "pids_limit": _integer,
    "ports": _of_list(_port),
    "privileged": _boolean,
    "profiles": _TEXTS,
    "read_only": _boolean,
    "scale": _integer,
    "secrets": _of_list(_file_mount("/run/secrets"), _of_map({"mode": _mode})),
    "security_opt": _TEXTS,
    "shm_size": _bytes,
    "stop_grace_period": _seconds,
    "sysctls": _pairs("=", ""),
    "tmpfs": _TEXTS,
    "ulimits": _of_map({"*": lambda value, at: _NUMBERED(_ulimit(value, at), at)}),
    "volumes": _of_list(
        _volume,
        _of_map(
            {
                "read_only": _boolean,
                "bind": _of_map({"create_host_path": _boolean}),
                "volume": _of_map({"nocopy": _boolean}),
                "tmpfs": _of_map({"size": _bytes, "mode": _mode}),
            }
        ),
    ),
}


def _resource(forms: Mapping[str, _Form]) -> _Form:
    """Return the form of a volume, network, config or secret with these keys."""
    inside = _of_map({"external": _boolean, "labels": _pairs("=", ""), **forms})
    return _of_map({"*": lambda value, at: inside(_external(value, at), at)})


_DOCUMENT: dict[str, _Form] = {
    "services": _of_map({"*": _of_map(_SERVICE)}),
    "networks": _resource(
        {
            "internal": _boolean,
            "enable_ipv4": _boolean,
            "enable_ipv6": _boolean,
            "attachable": _boolean,
            "ipam": _of_map({"config": _of_list()}),
        }
    ),
    "volumes": _resource({}),
    "configs": _resource({"file": _path}),
    "secrets": _resource({"file": _path}),
}

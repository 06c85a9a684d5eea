"""One document over another, by the rules of the Compose Specification. Both are in the long form.

Mappings are merged key by key and lists are joined; of what has one target, such as a port or a volume, the
later one counts. ``command``, ``entrypoint`` and the test of a health check are replaced whole. ``!reset``
takes away, ``!override`` replaces.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from .tree import YamlList, YamlMap, copy

__all__ = ["merge"]


def merge(lower: YamlMap, upper: YamlMap, path: tuple[str, ...] = ()) -> YamlMap:
    """Return *upper* merged over *lower*. Change neither."""
    found: YamlMap = copy(lower)
    found.resets |= upper.resets
    found.overrides |= upper.overrides
    for key in upper.resets:
        found.pop(key, None)
    for key, value in upper.items():
        place = upper.place_of(key)
        if key not in found or key in upper.overrides:
            found.put(key, copy(value), place)
        else:
            merged = _merge_values(found[key], value, (*path, key))
            found.put(key, merged, None if isinstance(merged, YamlMap) else place)
    return found


def _merge_values(lower: Any, upper: Any, path: tuple[str, ...]) -> Any:
    rule = _rule(path)
    if rule in _REPLACED:
        return copy(upper)
    if upper is None:
        # A variable that is named alone is that of the environment, whatever an earlier file says.
        return None if rule == "environment.*" else lower
    if isinstance(lower, YamlMap) and isinstance(upper, YamlMap):
        drivers = {each["driver"] for each in (lower, upper) if "driver" in each}
        if rule == "logging" and len(drivers) > 1:
            return copy(upper)
        return merge(lower, upper, path)
    if isinstance(lower, YamlList) and isinstance(upper, YamlList):
        return _join(lower, upper, _identity(path))
    return copy(upper)


def _rule(path: tuple[str, ...]) -> str:
    """Return the key of a service at *path*, where it has a rule of its own; otherwise ""."""
    match path:
        case ("services", _, "environment", _):
            return "environment.*"
        case ("services", _, "ulimits", _):
            return "ulimits.*"
        case ("services", _, *below):
            return ".".join(below)
        case _:
            return ""


_REPLACED = {"command", "entrypoint", "healthcheck.test", "ulimits.*"}


def _join(lower: YamlList, upper: YamlList, identity: Callable[[Any], Hashable]) -> YamlList:
    """Return both lists with each item once: at the position of the first, with the value of the last."""
    places: dict[Hashable, int] = {}
    found = YamlList(upper.place)
    for each, place in (*lower.items(), *upper.items()):
        value = copy(each)
        key = identity(each)
        if key in places:
            at = places[key]
            found[at], found.places[at] = value, place
        else:
            places[key] = len(found)
            found.add(value, place)
    return found


def _identity(path: tuple[str, ...]) -> Callable[[Any], Hashable]:
    if len(path) == 3 and path[0] == "services":
        return _IDENTITIES.get(path[2], _whole)
    if path[0] == "networks" and path[2:] == ("ipam", "config"):
        return lambda each: each.get("subnet")
    return _whole


def _whole(each: Any) -> Hashable:
    if isinstance(each, YamlMap):
        return tuple((key, _whole(value)) for key, value in sorted(each.items()))
    if isinstance(each, YamlList):
        return tuple(map(_whole, each))
    return repr(each)


def _target(each: YamlMap) -> Hashable:
    return each.get("target")


_IDENTITIES: dict[str, Callable[[Any], Hashable]] = {
    "ports": lambda each: tuple(
        each.get(key) for key in ("host_ip", "published", "target", "protocol")
    ),
    "volumes": _target,
    "devices": _target,
    "configs": _target,
    "secrets": _target,
    "tmpfs": lambda each: each.partition(":")[0],
    "env_file": lambda each: each.get("path"),
}

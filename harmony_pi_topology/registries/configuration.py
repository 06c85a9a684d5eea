"""podman's registries.conf (containers-registries.conf(5)), written and read. No effect: bytes to values.

Of what is read here, nothing is told: podman itself is asked what it makes of its files. By this it is known
which file speaks of a registry, and when podman has read them all.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias, cast

from harmony_core.resources import ImageRegistry
from harmony_pi_topology.containers.podman_reply import FoundRegistry

__all__ = ["Configuration", "describe_registry", "find_lone", "find_places", "read_registries"]

Configuration: TypeAlias = Mapping[str, bytes | None]
"""Every file that podman reads, in its order; None for one that cannot be read here, such as a link."""

_FIRST_LINE = "# Written by Harmony, which puts it back where somebody changes it."


def describe_registry(registry: ImageRegistry) -> bytes:
    """Return the text of the file that tells podman of *registry*."""
    # JSON's strings of printable ASCII, which is all that a place may have, are TOML's.
    place = json.dumps(registry.host)
    lines = [_FIRST_LINE, "[[registry]]", f"prefix = {place}", f"location = {place}"]
    if registry.insecure:
        lines.append("insecure = true")
    for mirror in registry.mirrors:
        lines += ["", "[[registry.mirror]]", f"location = {json.dumps(mirror.location)}"]
        if mirror.insecure:
            lines.append("insecure = true")
    return "\n".join([*lines, ""]).encode()


def find_places(content: bytes | None) -> frozenset[str]:
    """Return the registries, and parts of them, of which a file speaks; none where it is unreadable."""
    return frozenset(_read_file(content) or ())


def read_registries(configuration: Configuration) -> Mapping[str, FoundRegistry] | None:
    """Return what podman makes of all files together; None where that is not for us to tell."""
    found: dict[str, FoundRegistry] = {}
    for content in configuration.values():
        if (registries := _read_file(content)) is None:
            return None
        found.update(registries)
    return found


def find_lone(paths: Collection[str]) -> str | None:
    """Return that of *paths* for which podman refuses a directory of certificates: half of a client's."""
    halves = {".cert": ".key", ".key": ".cert"}
    found = (
        path
        for path in sorted(paths)
        for ending, other in halves.items()
        if path.endswith(ending) and path.removesuffix(ending) + other not in paths
    )
    return next(found, None)


def _read_file(content: bytes | None) -> Mapping[str, FoundRegistry] | None:
    if content is None:
        return None
    try:
        document = _fold(tomllib.loads(content.decode()))
        if "registries" in document:
            return None  # the older form, which only podman reads
        return dict(map(_read_registry, document.get("registry", [])))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None  # podman says what is wrong with it


def _fold(value: Any) -> Any:
    """Return *value* with its keys in lower case: podman takes them whatever their case is."""
    match value:
        case dict():
            table = cast("dict[str, Any]", value)
            if len(folded := {key.lower(): _fold(each) for key, each in table.items()}) < len(
                table
            ):
                raise ValueError(
                    "a key is there twice, and which of them counts is podman's to say"
                )
            return folded
        case list():
            return list(map(_fold, cast("Sequence[Any]", value)))
        case _:
            return value


def _read_registry(entry: Mapping[str, Any]) -> tuple[str, FoundRegistry]:
    location = str(entry.get("location", "")).rstrip("/")
    prefix = str(entry.get("prefix", "")).rstrip("/") or location
    mirrors = tuple(
        (str(each["location"]).rstrip("/"), bool(each.get("insecure", False)))
        for each in entry.get("mirror", [])
    )
    return prefix, FoundRegistry(
        location=location,
        mirrors=mirrors,
        insecure=bool(entry.get("insecure", False)),
        blocked=bool(entry.get("blocked", False)),
    )

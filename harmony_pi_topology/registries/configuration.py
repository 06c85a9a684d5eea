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
    """Return the content of the file that configures *registry* for podman."""
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
    """Return the registries, and parts of registries, that a file configures; none where it cannot be
    read."""
    return frozenset(_read_file(content) or ())


def read_registries(configuration: Configuration) -> Mapping[str, FoundRegistry] | None:
    """Return how podman uses registries according to all files together; None where Harmony cannot tell."""
    found: dict[str, FoundRegistry] = {}
    for content in configuration.values():
        if (registries := _read_file(content)) is None:
            return None
        found.update(registries)
    return found


def find_lone(paths: Collection[str]) -> str | None:
    """Return the first of *paths* that is a client's certificate without its key, or a key without its
    certificate: podman refuses the whole directory for it. Return None where there is none."""
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
    """Return *value* with its keys in lower case: podman ignores their case."""
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

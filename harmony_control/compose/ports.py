"""``ports`` in short and long form, one port each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any, cast

from .faults import Wrong

__all__ = ["expand_port"]

_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_HIGHEST = 65_535
_MOST = 1024


def expand_port(value: Any) -> Iterator[dict[str, Any]]:
    """Yield each port that *value* stands for: target, published, protocol, host_ip, and its other keys.

    A target without a port of the device has no published.
    """
    if isinstance(value, Mapping):
        yield from _of_long(cast("Mapping[str, Any]", value))
        return
    if isinstance(value, float):
        raise Wrong('write a port in quotes, as in "8080:80"')
    text, _, protocol = str(value).partition("/")
    address, published, target = _split(text)
    yield from _each(address, published, target, protocol or "tcp", {})


def _of_long(value: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if "target" not in value:
        raise Wrong("has no target; write the port in the container")
    known = {"target", "published", "protocol", "host_ip"}
    more = {key: each for key, each in value.items() if key not in known}
    address, protocol = str(value.get("host_ip", "")), str(value.get("protocol", "tcp"))
    published = str(value.get("published", ""))
    yield from _each(address, published, str(value["target"]), protocol, more)


def _split(text: str) -> tuple[str, str, str]:
    """Return the address, the device's port and the container's port of ``[ADDRESS:][PORT:]PORT``."""
    before, _, target = text.rpartition(":")
    address, _, published = before.rpartition(":")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    return address, published, target


def _each(
    address: str, published: str, target: str, protocol: str, more: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    targets = _range(target)
    outside = _range(published) if published else None
    if address:
        try:
            ip_address(address)
        except ValueError:
            raise Wrong(
                f"{address!r} is no address; write one of the device, as in 127.0.0.1"
            ) from None
    if outside is not None and len(outside) != len(targets):
        raise Wrong(
            f"{published} and {target} are not equally many ports; write as many of the device as of "
            "the container"
        )
    for number, port in enumerate(targets):
        found: dict[str, Any] = {"target": port}
        if outside is not None:
            found["published"] = str(outside[number])
        if address:
            found["host_ip"] = address
        yield {**found, "protocol": protocol.lower(), **more}


def _range(text: str) -> range:
    found = _RANGE.fullmatch(text)
    if found is None:
        raise Wrong(f"{text!r} is no port; write a number, or a range as in 8000-8010")
    first, last = int(found[1]), int(found[2] or found[1])
    if not 0 < first <= last <= _HIGHEST:
        raise Wrong(
            f"{text} is no range of ports; write numbers from 1 to {_HIGHEST}, the lower first"
        )
    if last - first >= _MOST:
        raise Wrong(f"{text} is more than {_MOST} ports; publish fewer, or use network_mode: host")
    return range(first, last + 1)

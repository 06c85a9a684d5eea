"""Claims: under which names a thing is owned, so that two Scores that ask for one thing are seen to.

A claim is text, ``TYPE:NAME``, such as ``port:[127.0.0.1]:80/tcp`` or ``user:web``. A resource claims its
own id, what its `Resource.exclusive` says, and what its reconciler knows it by (`Identifying`)::

    port:80/tcp    meets  port:[127.0.0.1]:80/tcp       addresses that overlap
    unit:b.service meets  unit:b.service                an alias, and the unit of that name
    sysctl:a/b = 1 meets  sysctl:a/b = 2, not a/b = 1   what several may want alike

"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Protocol, runtime_checkable

__all__ = ["Identifying", "alike", "collide", "in_words", "names_of", "slot_of"]

_ALIKE = "\t"
_AT_A_PATH = frozenset({"file", "directory"})
_PORT = re.compile(r"port:(?:\[(?P<address>.*)\]:)?(?P<rest>\d+/\w+)")


@runtime_checkable
class Identifying(Protocol):
    """A `Reconciler` that knows by which other names its device has a thing."""

    async def identities(self, resource: Any) -> frozenset[str]:
        """Return the claims of what stands, or would stand, under the name of *resource*.

        Such as ``unit:ALIAS`` for a unit. Equal for two resources only where they are one thing. Changes
        nothing, and raises only `CapabilityError`s.
        """
        ...


def alike(claim: str, wish: str) -> str:
    """Return *claim* as one that others may have too, as long as they have the same *wish* for it."""
    return f"{claim}{_ALIKE}{wish}"


def names_of(resource_id: str) -> tuple[str, ...]:
    """Return what a resource of this id claims by its id alone: that, and its path where it has one."""
    resource_type, _, key = resource_id.partition(":")
    return (resource_id, f"path:{key}") if resource_type in _AT_A_PATH else (resource_id,)


def slot_of(claim: str) -> str:
    """Return what is equal for any two claims that may collide."""
    thing = claim.partition(_ALIKE)[0]
    port = _PORT.fullmatch(thing) if thing.startswith("port:") else None
    return f"port:{port['rest']}" if port else thing


def collide(one: str, other: str) -> bool:
    """Return whether *one* and *other* cannot both be had."""
    (thing, _, wish), (other_thing, _, other_wish) = (
        each.partition(_ALIKE) for each in (one, other)
    )
    if slot_of(one) != slot_of(other) or (wish and wish == other_wish):
        return False
    port, other_port = _PORT.fullmatch(thing), _PORT.fullmatch(other_thing)
    if port is None or other_port is None:
        return True
    return _overlap(port["address"] or "", other_port["address"] or "")


def in_words(claim: str) -> str:
    """Return *claim* as a person reads it."""
    thing, _, wish = claim.partition(_ALIKE)
    return f"{thing} ({wish})" if wish else thing


def _overlap(one: str, other: str) -> bool:
    """Return whether a port at address *one* takes the same port at *other*. Both empty and ``::`` are all of
    them: an IPv6 socket that is bound to ``::`` has the IPv4 addresses, too."""
    first, second = _address(one), _address(other)
    if first is None or second is None or first == second:
        return True
    return type(first) is type(second) and (first.is_unspecified or second.is_unspecified)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address in *text*; None for all there are, and for what is none and may so be any."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.is_unspecified:
            return None
        return address.ipv4_mapped or address
    return address

"""Claims: under which names a thing is owned, so that two Scores that ask for one thing are seen to.

A claim is text, ``TYPE:NAME``, such as ``port:[127.0.0.1]:80/tcp`` or ``user:web``. A resource claims its
own id, what its `Resource.exclusive` says, and what its reconciler knows it by (`Identifying`)::

    port:80/tcp    meets  port:[127.0.0.1]:80/tcp       addresses that overlap
    unit:b.service meets  unit:b.service                an alias, and the unit of that name
    sysctl:a/b = 1 meets  sysctl:a/b = 2, not a/b = 1   what several may want alike

"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import PurePosixPath
from typing import Any, Protocol, runtime_checkable

__all__ = [
    "NO_VERSION",
    "Identifying",
    "alike",
    "collide",
    "find_in_the_way",
    "in_words",
    "names_of",
    "path_of",
    "slot_of",
    "tree_claims",
]

NO_VERSION = "no version"
"""What is wished for a package that is to be absent, as in ``alike("package:nginx", NO_VERSION)``."""
_ALIKE = "\t"
_AT_A_PATH = frozenset({"file", "directory", "link"})
_PART_OF_A_FILE = "block"
_PORT = re.compile(r"port:(?:\[(?P<address>.*)\]:)?(?P<rest>\d+/\w+)")


@runtime_checkable
class Identifying(Protocol):
    """A `Reconciler` that knows by which other names its device has a thing."""

    async def identities(self, resource: Any) -> frozenset[str]:
        """Return the claims of what exists, or would exist, under the name of *resource*.

        An example is ``unit:ALIAS`` for a unit. Two resources have equal claims only where they are one
        thing. Change nothing, and raise only `CapabilityError`s.
        """
        ...


def alike(claim: str, wish: str) -> str:
    """Return *claim* as one that others may share, as long as they have the same *wish* for it."""
    return f"{claim}{_ALIKE}{wish}"


def tree_claims(source: str, *, is_written: bool) -> Iterator[str]:
    """Yield the claims that keep the directories above *source* apart from those that containers may write.

    A source is resolved by its path whenever it is mounted. A container is root in the directories that it
    may write: it could replace the source of another container by a link to the whole device. *is_written*
    says that a container may write here.
    """
    if is_written:
        yield alike(f"tree:{source}", "written by containers")
    for above in PurePosixPath(source).parents:
        yield alike(f"tree:{above}", "written by no container, since a mount lies below it")


def names_of(resource_id: str) -> tuple[str, ...]:
    """Return what a resource of this id claims by its id alone: that, and its path where it has one."""
    resource_type, _, key = resource_id.partition(":")
    return (resource_id, f"path:{key}") if resource_type in _AT_A_PATH else (resource_id,)


def path_of(resource_id: str) -> str | None:
    """Return the path at which a resource of this id is, or the file it is a part of; else None."""
    resource_type, _, key = resource_id.partition(":")
    if resource_type in _AT_A_PATH:
        return key
    return key.rpartition("#")[0] if resource_type == _PART_OF_A_FILE else None


def find_in_the_way(ids: Iterable[str], wanted: Collection[str]) -> set[str]:
    """Return those of *ids* that conflict with *wanted* by their path: what is below something that is no
    directory, and what is no directory above something."""
    solid = {path for rid in wanted if _is_solid(rid) and (path := path_of(rid)) is not None}
    paths = {path for rid in wanted if (path := path_of(rid)) is not None}
    above = {parent for path in paths for parent in _parents(path)}
    return {
        rid
        for rid in ids
        if (path := path_of(rid)) is not None
        and ((_is_solid(rid) and path in above) or not solid.isdisjoint(_parents(path)))
    }


def _is_solid(resource_id: str) -> bool:
    return resource_id.partition(":")[0] in _AT_A_PATH - {"directory"}


def _parents(path: str) -> Iterator[str]:
    return map(str, PurePosixPath(path).parents)


def slot_of(claim: str) -> str:
    """Return a value that is equal for any two claims that may collide."""
    thing = claim.partition(_ALIKE)[0]
    port = _PORT.fullmatch(thing) if thing.startswith("port:") else None
    return f"port:{port['rest']}" if port else thing


def collide(one: str, other: str) -> bool:
    """Return whether *one* and *other* exclude each other."""
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
    """Return *claim* in words for people."""
    thing, _, wish = claim.partition(_ALIKE)
    return f"{thing} ({wish})" if wish else thing


def _overlap(one: str, other: str) -> bool:
    """Return whether a port at address *one* takes the same port at *other*. An empty address and ``::`` are
    all addresses: an IPv6 socket that is bound to ``::`` has the IPv4 addresses, too."""
    first, second = _address(one), _address(other)
    if first is None or second is None or first == second:
        return True
    return type(first) is type(second) and (first.is_unspecified or second.is_unspecified)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address in *text*; None for all addresses, and for a text that is no address and may be
    any."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.is_unspecified:
            return None
        return address.ipv4_mapped or address
    return address

"""The root documents in the bucket ``trust``: read by everybody, written once each, hinted to each device.

publish -> trust.<version> -> a hint to each device's mailbox -> the device fetches it, and what follows
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
from nats.aio.client import Client

from harmony_control.store.home import Home
from harmony_control.store.roots import (
    open_next,
    read_chain,
    read_envelope,
    read_hashes,
    save_root,
)
from harmony_core.errors import RevisionConflict, RootRejected, UsageError
from harmony_core.wire.names import DEVICES, MAIL, TRUST

from .connection import Bucket, bus_errors
from .newest import newest
from .reports import Reports, Seen

if TYPE_CHECKING:
    from harmony_core.wire.root import Root  # a fleet without one needs no model of it

log = logging.getLogger(__name__)

__all__ = ["Taken", "hint", "look_who_has", "publish", "publish_missing", "refresh"]

_LOOK_AGAIN_S = 0.5


async def refresh(home: Home, client: Client) -> Root | None:
    """Keep the root documents that were published since, each verified by the one before. Return the newest;
    None for a fleet without.

    Log the first one, since only an operator's key vouches for it here. Ignore what does not follow the one
    before: whoever may write the bucket can put it there. Raise `StoreError`s.
    """
    chain = await asyncio.to_thread(read_chain, home)
    latest = chain[-1] if chain else None
    bucket = Bucket(client, TRUST)
    while (entry := await bucket.get(str(latest.version + 1 if latest else 1))) is not None:
        try:
            latest = await asyncio.to_thread(open_next, home, entry.value, latest)
        except RootRejected as error:
            log.warning("what stands as the next root document does not count: %s", error.message)
            break
        await asyncio.to_thread(save_root, home, latest.version, entry.value)
        if latest.version == 1:
            _tell_first(home, entry.value)
    return latest


def _tell_first(home: Home, envelope: bytes) -> None:
    from harmony_core.wire.root import hash_root

    log.warning(
        "the fleet has a root document now, sha256 %s: from now on it says whom this home believes, and not "
        "%s. Compare it with who has made it; `harmony trust show` prints it",
        hash_root(envelope),
        home.operators,
    )


async def publish(
    home: Home, client: Client, envelope: bytes, *, replaces: str | None = None
) -> Root:
    """Publish *envelope* as the newest root document, and hint it to every device.

    Raise `RootRejected` where it does not follow the newest one, or too few have signed it; `UsageError`
    where somebody else has published that version. A first one that nobody trusted here has signed, and that
    some devices may follow, is replaced only where *replaces* is its SHA-256.
    """
    before = await refresh(home, client)
    root = await asyncio.to_thread(open_next, home, envelope, before)
    bucket = Bucket(client, TRUST)
    # What stands there already does not count here: else `refresh` had taken it.
    there = await bucket.get(str(root.version))
    if there is not None and root.version == 1:
        _refuse_to_replace(there.value, fleet=root.fleet, replaces=replaces)
    try:
        if there is None:
            await bucket.create(str(root.version), envelope)
        else:
            await bucket.update(str(root.version), envelope, last=there.revision)
    except RevisionConflict as error:
        raise UsageError(
            f"version {root.version} was published by somebody else meanwhile; look at it with `harmony "
            "trust show`, and change that one"
        ) from error
    await asyncio.to_thread(save_root, home, root.version, envelope)
    # Where it was not enrolled from this home, a device has its record in the bus.
    records = await newest(client, f"KV_{DEVICES}", DEVICES)
    enrolled = await asyncio.to_thread(home.agents)
    await hint(client, sorted(enrolled.keys() | {each.key for each in records}))
    return root


def _refuse_to_replace(there: bytes, *, fleet: str, replaces: str | None) -> None:
    """Raise `UsageError` where *there* is a first root document that counts for who trusts its signers."""
    from harmony_core.wire.root import hash_root, open_pinned_root

    try:
        open_pinned_root(there, fleet=fleet)
    except RootRejected:
        return  # it counts nowhere
    if (sha256 := hash_root(there)) != replaces:
        raise UsageError(
            f"a root document stands on the message server already, sha256 {sha256}, which no operator "
            "trusted here has signed; devices that trust who has signed it follow it. Find out who has "
            f"published it; to put yours in its place: harmony trust publish --replace {sha256}"
        )


@attrs.frozen(kw_only=True)
class Taken:
    """What devices say of a root document, each device in one of these, by id."""

    by: Sequence[str]
    """It counts there, or a later one that is known here."""
    not_by: Sequence[str]
    """Not yet, of those that are heard of."""
    away: Sequence[str]
    """Not yet, of the others."""
    others: Sequence[str]
    """There counts another document of the same version than is known here, or one that is not known here."""
    untold: Mapping[str, int]
    """The version that counts there; which document it is, an older agent does not tell."""


async def look_who_has(reports: Reports, version: int, *, within_s: float = 0.0) -> Taken:
    """Return who has accepted root document *version*, or a later one, according to their own signed reports,
    and the SHA-256 of each document that is known here.

    Wait, at most *within_s* seconds, for those who are heard and have not accepted it.
    """
    until = asyncio.get_running_loop().time() + within_s
    while True:
        seen = await reports.read_all_seen()
        hashes = await asyncio.to_thread(read_hashes, reports.home)
        if any(each.state and each.state.root_version > max(hashes, default=0) for each in seen):
            await refresh(reports.home, reports.client)
            hashes = await asyncio.to_thread(read_hashes, reports.home)
        found = _sort(seen, version, hashes)
        if not found.not_by or asyncio.get_running_loop().time() >= until:
            return found
        await asyncio.sleep(_LOOK_AGAIN_S)


def _sort(seen: Iterable[Seen], version: int, hashes: Mapping[int, str]) -> Taken:
    by, not_by, away, others = [list[str]() for _ in range(4)]
    untold: dict[str, int] = {}
    for each in seen:
        state = each.state
        # A later one that is not to be had cannot be verified: it is none of ours either.
        if each.follows_other_root or (
            state is not None and state.root_sha256 and state.root_version > max(hashes, default=0)
        ):
            others.append(each.agent_id)
        elif state is None or state.root_version < version:
            (not_by if each.presence == "Heard" else away).append(each.agent_id)
        elif not state.root_sha256:
            untold[each.agent_id] = state.root_version
        else:
            by.append(each.agent_id)
    return Taken(by=by, not_by=not_by, away=away, others=others, untold=untold)


async def publish_missing(home: Home, client: Client) -> None:
    """Write again what the bucket has lost of what is kept here, as after the server's disk was replaced."""
    bucket = Bucket(client, TRUST)
    for root in await asyncio.to_thread(read_chain, home):
        if await bucket.get(str(root.version)) is None:
            envelope = await asyncio.to_thread(read_envelope, home, root.version)
            await bucket.put(str(root.version), envelope)


async def hint(client: Client, agent_ids: Iterable[str]) -> None:
    """Tell these devices that there is a newer root document. A device that is away finds it when it
    connects."""
    with bus_errors("telling devices of a new root document"):
        for each in agent_ids:
            await client.publish(f"{MAIL}.{each}.{TRUST}", b"")
        await client.flush()

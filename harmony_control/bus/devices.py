"""Devices: which ones there are, so that a mistyped id is told as that and waited for by nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from nats.aio.client import Client

from harmony_control.store.home import Home
from harmony_core.close_names import did_you_mean
from harmony_core.errors import NotEnrolled, UnknownDevice
from harmony_core.wire.names import ACTUAL_STATE, HEARTBEAT

from .connection import Bucket

__all__ = ["describe_unknown", "refuse_not_enrolled", "refuse_unknown"]


async def refuse_unknown(home: Home, client: Client, agent_id: str) -> None:
    """Raise `UnknownDevice` for an id that is neither enrolled here nor was ever heard of.

    A home from which nobody was enrolled cannot know: there, every id may be a device.
    """
    if (known := await _others(home, client, agent_id)) is not None:
        raise UnknownDevice(describe_unknown(agent_id, known))


async def refuse_not_enrolled(home: Home, client: Client, agent_id: str) -> None:
    """Raise `NotEnrolled` where `refuse_unknown` raises, and for a device whose key is revoked; call it
    before a push."""
    if await asyncio.to_thread(_is_revoked, home, agent_id):
        raise NotEnrolled(
            f"nothing was pushed, since the key of {agent_id} is revoked: it is let in no more, and would "
            "never take it. To let it in again with a new key, run "
            f"`harmony enroll root@{agent_id} --replace` first; with --force it is pushed all the same"
        )
    if (known := await _others(home, client, agent_id)) is not None:
        unknown = describe_unknown(agent_id, known)
        raise NotEnrolled(
            f"nothing was pushed, since {unknown}{'' if unknown.endswith('?') else '.'} For a new device, "
            f"run `harmony enroll root@{agent_id}` first; with --force it is pushed all the same"
        )


def _is_revoked(home: Home, agent_id: str) -> bool:
    """Return whether there was such a device, whose key was revoked from here, and none since."""
    return agent_id in home.revoked().values() and agent_id not in home.agents()


async def _others(home: Home, client: Client, agent_id: str) -> list[str] | None:
    """Return every other device, since *agent_id* is none."""
    enrolled = await asyncio.to_thread(home.agents)
    if not enrolled or agent_id in enrolled:
        return None
    for name in (ACTUAL_STATE, HEARTBEAT):
        if await Bucket(client, name).get(agent_id) is not None:
            return None
    return sorted(enrolled)


def describe_unknown(agent_id: str, known: Iterable[str]) -> str:
    """Return the message that *agent_id* is no device, and which of those that are *known* may be meant."""
    others = ", ".join(sorted(known)) or "none yet; see `harmony enroll`"
    hint = did_you_mean(agent_id, known) or f"; there are: {others}"
    return f"there is no device {agent_id!r}{hint}"

"""With which key each device signs what it says, as it was enrolled.

where it was enrolled -> agents.json
elsewhere             -> the bucket ``devices``, as an operator has signed it

What only the second way needs is loaded there: most commands go the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
from nats.aio.client import Client

from harmony_control.store.home import Home
from harmony_control.store.seen import SeenCounters, SignedMessage
from harmony_core.errors import ConfigError, ManifestRejected, StoreError
from harmony_core.wire.device_signature import is_signed_by
from harmony_core.wire.envelope import VerifyKey
from harmony_core.wire.names import DEVICES

from .connection import Entry
from .newest import newest_of

if TYPE_CHECKING:
    from harmony_core.wire.device_record import DeviceRecord

__all__ = ["DeviceKeys"]

_LOOK_AGAIN_S = 15.0


@attrs.frozen
class _Believed:
    """Whose word counts on who a device is; None where that is known here."""

    enrolled: Mapping[str, str] | None
    fleet: str
    trusted: Mapping[str, bytes]


class DeviceKeys:
    """Knows the keys of the devices of a fleet, as long as somebody reads what they say."""

    def __init__(self, home: Home, client: Client) -> None:
        self._home = home
        self._client = client
        self._seen = SeenCounters(home.seen)
        self._known: dict[str, str] = {}
        self._by: _Believed | None = None
        """By whose word what is known was learned, where that is said by records."""
        self._look_at_s = 0.0

    async def load(self, agent_ids: Collection[str], *, anew: bool = False) -> None:
        """Learn the keys of these devices; with *anew*, also of those that are known already."""
        await self._forget_what_counts_no_more()
        known = self._known
        asked = [each for each in agent_ids if anew or each not in known]
        if not asked:
            return
        believed = await asyncio.to_thread(_read_believed, self._home)
        found = believed.enrolled
        if found is None:
            found = await self._read_records(asked, believed)
        known |= {each: found.get(each, "") for each in asked}

    async def _forget_what_counts_no_more(self) -> None:
        """Forget all keys once others may say who a device is: who has said it before may have been
        removed."""
        now_s = asyncio.get_running_loop().time()
        if self._by is None or now_s < self._look_at_s:
            return
        self._look_at_s = now_s + _LOOK_AGAIN_S
        with suppress(StoreError):  # the bus is away, and what was learned from it counts meanwhile
            await self._refresh()
        if (await asyncio.to_thread(_read_believed, self._home)).trusted != self._by.trusted:
            self._known, self._by = {}, None

    async def _refresh(self) -> None:
        from .roots import refresh

        await refresh(self._home, self._client)

    async def _read_records(
        self, agent_ids: Collection[str], believed: _Believed
    ) -> dict[str, str]:
        entries = await newest_of(self._client, DEVICES, agent_ids)
        records = _open_all(entries, believed)
        if len(records) < len(entries):
            # Who may say it may have changed since the root document was read here.
            await self._refresh()
            believed = await asyncio.to_thread(_read_believed, self._home)
            records = _open_all(entries, believed)
        if self._by is None:
            self._by = believed
            self._look_at_s = asyncio.get_running_loop().time() + _LOOK_AGAIN_S
        admitted = await asyncio.to_thread(
            self._seen.admit, [_to_message(each) for each in records]
        )
        return {
            record.agent_id: record.report_key or ""
            for record, is_new in zip(records, admitted, strict=True)
            if is_new
        }

    def of(self, agent_id: str) -> str:
        """Return the public key of the device, as one line; empty where none is known. See `load`."""
        return self._known.get(agent_id, "")

    @property
    def are_enrolled_here(self) -> bool:
        """Whether this home has let the devices in, so that nobody else says who they are. See `load`."""
        return self._by is None

    def is_signed(self, agent_id: str, content_type: str, content: bytes, signature: str) -> bool:
        """Return whether the device has signed *content* as what *content_type* says. See `load`."""
        try:
            public = VerifyKey.from_text(self.of(agent_id)).public
        except ConfigError:
            return False
        return is_signed_by(public, content_type, content, signature)


def _open_all(entries: Iterable[Entry], believed: _Believed) -> list[DeviceRecord]:
    """Return the records in *entries*. One that does not count is ignored: its device is not believed
    then."""
    from harmony_core.wire.device_record import open_record

    records: list[DeviceRecord] = []
    for entry in entries:
        with suppress(ManifestRejected):
            records.append(
                open_record(
                    entry.value,
                    trusted=believed.trusted,
                    fleet=believed.fleet,
                    agent_id=entry.key,
                )
            )
    return records


def _read_believed(home: Home) -> _Believed:
    config = home.control()
    if config.listen is not None:
        enrolled = {agent_id: each.report_key for agent_id, each in home.agents().items()}
        return _Believed(enrolled, config.fleet, {})
    from harmony_control.store.roots import read_believed

    return _Believed(None, config.fleet, read_believed(home).find_keys("device"))


def _to_message(record: DeviceRecord) -> SignedMessage:
    return SignedMessage(
        agent_id=record.agent_id,
        kind="record",
        key="",  # whoever of the operators has signed it
        counter=record.serial,
        revision=0,  # the same record may be written again
        written_s=0,
    )

"""Trust: whose signatures count here, and for what.

    agent.toml: operator_keys -> for all, until there is a root document that one of them has signed
    agent.toml: root          -> what was pinned -> next -> next, each from the bus -> root.json

Where root.json is lost, or agent.toml is another one, all begins at what is pinned, and the versions since
are fetched again: the floor goes back for none of it. Which version has counted is noted with the manifest
and with the floor, too: until that one is fetched again, nobody is believed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from harmony_agent.config import AgentConfig
from harmony_core.errors import CapabilityError, HarmonyError, RootRejected
from harmony_core.wire.envelope import VerifyKey, pin_keys

from .database import Database
from .flushing import make_directory, replace_file

if TYPE_CHECKING:
    from harmony_core.wire.root import Root, Signed  # a fleet without one needs no model of it

__all__ = ["Trust"]

log = logging.getLogger(__name__)


class Trust:
    """Knows the root document that counts here, if there is one, and the keys that it gives."""

    def __init__(self, config: AgentConfig, database: Database) -> None:
        self._database = database
        self._fleet = config.fleet
        self._operator_keys = pin_keys(map(VerifyKey.from_text, config.trust.operator_keys))
        self._pinned = _hash_of(config)
        self._path = config.state_directory / "root.json"
        self._envelope: bytes | None = None
        self._is_kept = True
        self._expected = 0
        self.root: Root | None = None
        self.sha256 = ""
        """Of that document; empty for none."""
        self.rejected = ""
        """Why the next root document, which is there, does not count; empty where none is there."""
        self.unkept = ""
        """Why the one that counts could not be written down; empty where it is."""
        if config.trust.root is not None:
            from harmony_core.wire.root import open_pinned_root  # noqa: PLC0415 - as above

            pinned = config.trust.root.encode()
            self._set(pinned, open_pinned_root(pinned, fleet=config.fleet))

    @classmethod
    async def load(cls, config: AgentConfig, database: Database) -> Self:
        """Read what counted last. Raise `RootRejected` where what agent.toml pins is damaged."""
        trust = cls(config, database)
        await database.aside(trust._read)
        return trust

    def _read(self) -> None:
        try:
            stored = json.loads(self._path.read_bytes())
            if stored["pinned"] != self._pinned:
                return  # this device was let in anew: what it trusted before says nothing
            envelope = base64.b64decode(stored["envelope"])
            from harmony_core.wire.root import open_pinned_root  # noqa: PLC0415 - as above

            root = open_pinned_root(envelope, fleet=self._fleet)
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, HarmonyError) as error:
            log.warning("%s cannot be read, and is fetched again: %s", self._path, error)
            return
        if self.root is None or root.version > self.root.version:
            self._set(envelope, root)

    def _set(self, envelope: bytes, root: Root) -> None:
        from harmony_core.wire.root import hash_root  # noqa: PLC0415 - as above

        self._envelope, self.root, self.sha256 = envelope, root, hash_root(envelope)

    @property
    def version(self) -> int:
        """Return which root document counts; 0 for none."""
        return self.root.version if self.root is not None else 0

    def remember(self) -> Mapping[str, Any]:
        """Return what `expect` needs at the next start: the newest root document that has counted here."""
        return {"root": max(self.version, self._expected), "pinned": self._pinned}

    def expect(self, remembered: Mapping[str, Any]) -> None:
        """Accept nothing that is signed, unless the root document is known that has counted here.

        If agent.toml pins something else since, this device was enrolled again, and that document does not
        count.
        """
        if remembered["pinned"] == self._pinned:
            self._expected = max(self._expected, int(remembered["root"]))

    @property
    def is_lost(self) -> bool:
        """Whether a newer root document has counted here than is known now."""
        return self.version < self._expected

    def find_keys(
        self, what: Signed, now: datetime, target: str | None = None
    ) -> Mapping[str, bytes]:
        """Return the keys whose signature of *what* counts at *now*, by key id; *target* is as for
        `Root.find_keys`."""
        if self.is_lost:
            return {}
        if self.root is None:
            return self._operator_keys
        return self.root.find_keys(what, now, target)

    def is_over(self, now: datetime) -> bool:
        """Return whether the root document has expired at *now*: nothing new counts until it is renewed."""
        return self.root is not None and self.root.is_over(now)

    async def update(self, fetch: Callable[[int], Awaitable[bytes | None]]) -> bool:
        """Update to the newest root document that *fetch* has, by version. Return whether there was one.

        `rejected` says why one does not count. Raise what *fetch* raises.
        """
        before = self.version
        while (envelope := await fetch(self.version + 1)) is not None:
            try:
                root = self._open_next(envelope)
            except RootRejected as error:
                self._set_rejected(error.message)
                return self.version != before
            log.info("root document %d counts now, of epoch %d", root.version, root.epoch)
            self._is_kept = False
            self._set(envelope, root)
            await self.keep()
        self._set_rejected("")
        return self.version != before

    def _open_next(self, envelope: bytes) -> Root:
        from harmony_core.wire.root import open_first_root, open_next_root  # noqa: PLC0415 - as above

        if self.root is not None:
            return open_next_root(envelope, self.root)
        return open_first_root(envelope, fleet=self._fleet, operator_keys=self._operator_keys)

    def _set_rejected(self, why: str) -> None:
        if why and why != self.rejected:
            log.warning("root document %d does not count: %s", self.version + 1, why)
        self.rejected = why

    async def keep(self) -> None:
        """Store what counts; do nothing when it is stored. Raise nothing: see `unkept`."""
        if self._is_kept or self._envelope is None:
            return
        content = {
            "pinned": self._pinned,
            "envelope": base64.b64encode(self._envelope).decode(),
        }
        try:
            await self._database.aside(self._write, json.dumps(content).encode())
        except (OSError, CapabilityError) as error:
            why = getattr(error, "strerror", None) or str(error)
            self.unkept = (
                f"{self._path} cannot be written: {why}; make room there, or make it writable: it is tried "
                "again by itself"
            )
        else:
            self._is_kept, self.unkept = True, ""

    def _write(self, content: bytes) -> None:
        make_directory(self._path.parent)
        replace_file(self._path, self._path.with_name("root.json.new"), content)


def _hash_of(config: AgentConfig) -> str:
    """Return a hash that differs between one agent.toml's trust and another's."""
    pinned: Any = [config.trust.root, *sorted(config.trust.operator_keys)]
    return hashlib.sha256(json.dumps(pinned).encode()).hexdigest()

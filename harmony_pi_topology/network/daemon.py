"""What a reconciler of network profiles needs of the daemon that keeps them. Shared by the real and the fake.

A profile is known by its UUID. ``keep=False`` writes it for this boot only: the disk goes on holding what
it held, so that a device that loses its power in the middle of a change comes back as it was.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from .records import FoundNetwork
from .settings import Secrets, Settings

__all__ = ["CheckpointTaken", "NetworkDaemon", "SecretFiles"]


class SecretFiles(Protocol):
    """The secrets of the device, each by its name."""

    async def read(self, name: str) -> bytes:
        """Return the content of the secret that a `SecretRef` names. Raise `SecretMissing` where it cannot be
        used."""
        ...

    async def find_own(self, name: str) -> bytes | None:
        """Return the content of a secret that the device has made itself, which no `SecretRef` can name.

        Return None where there is none. Raise `SecretMissing` where it cannot be used.
        """
        ...

    async def keep_own(self, name: str, content: bytes) -> None:
        """Store a secret that the device has made itself, so that nobody else can read it."""

    async def forget_own(self, name: str) -> None:
        """Delete a secret that the device has made itself. Do nothing when there is none."""


class CheckpointTaken(Exception):
    """Another change of these interfaces waits to be confirmed."""


class NetworkDaemon(Protocol):
    """Keeps profiles, and uses them. Raises `CapabilityError`s alone, but for `CheckpointTaken`."""

    async def look(self, name: str, uuid: str, interface: str | None) -> FoundNetwork:
        """Return the profile with *uuid*, the other profiles called *name*, and the state of *interface*,
        which is given by its name or its MAC address."""
        ...

    async def add(
        self, uuid: str, name: str, settings: Settings, secrets: Secrets, *, keep: bool
    ) -> None:
        """Add a profile, labelled as that of the resource *name*. Do not activate it."""

    async def change(self, uuid: str, settings: Settings, secrets: Secrets, *, keep: bool) -> None:
        """Write these settings and secrets. Leave everything else unchanged."""

    async def delete(self, uuid: str) -> None:
        """Delete a profile, and deactivate what uses it. Do nothing when there is none."""

    async def activate(self, uuid: str, interface: str | None) -> None:
        """Activate the profile, in place of the one that is active there."""

    async def apply(self, uuid: str) -> bool:
        """Make the interface that uses the profile take on its changes, without an interruption. Return False
        if it cannot."""
        ...

    async def deactivate(self, uuid: str) -> None:
        """Deactivate the profile. Do nothing when it is not active."""

    async def snapshot(self, uuid: str) -> bytes:
        """Return the whole profile, including its secrets."""
        ...

    async def restore(self, snapshot: bytes, *, keep: bool) -> None:
        """Restore the profile exactly, and add it again if it is gone. Do not activate it."""

    def settings_in(self, snapshot: bytes) -> Settings:
        """Return the known settings of a snapshot."""
        ...

    def secrets_in(self, snapshot: bytes) -> Mapping[str, str]:
        """Return the known secrets of a snapshot."""
        ...

    async def checkpoint(self, interfaces: Collection[str], *, within_s: int) -> str:
        """Create a checkpoint of these interfaces and their profiles, and return its name.

        Unless `commit` is called within *within_s* seconds, the daemon itself restores all of it, whatever
        happens to the agent. Raise `CheckpointTaken`.
        """
        ...

    async def waits(self, checkpoint: str) -> bool:
        """Return whether that checkpoint is neither committed nor rolled back yet."""
        ...

    async def commit(self, checkpoint: str) -> bool:
        """Keep all changes since the checkpoint. Return False when it has been rolled back already."""
        ...

    async def roll_back(self, checkpoint: str) -> None:
        """Roll back to the checkpoint now. Do nothing when that has happened already."""

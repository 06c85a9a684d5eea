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
        """Return the content of what a `SecretRef` names. `SecretMissing` where it cannot be used."""
        ...

    async def find_own(self, name: str) -> bytes | None:
        """Return the content of one that the device has made itself, which no `SecretRef` can name.

        None where there is none; `SecretMissing` where it cannot be used.
        """
        ...

    async def keep_own(self, name: str, content: bytes) -> None:
        """Keep one that the device has made itself, so that nobody else can read it."""

    async def forget_own(self, name: str) -> None:
        """Take one away that the device has made itself. Free when there is none."""


class CheckpointTaken(Exception):
    """Another change of these interfaces waits to be confirmed."""


class NetworkDaemon(Protocol):
    """Keeps profiles, and uses them. Raises `CapabilityError`s alone, but for `CheckpointTaken`."""

    async def look(self, name: str, uuid: str, interface: str | None) -> FoundNetwork:
        """Return what is there under *uuid*, who else is called *name*, and how *interface* is, which is told
        by its name or its MAC address."""
        ...

    async def add(
        self, uuid: str, name: str, settings: Settings, secrets: Secrets, *, keep: bool
    ) -> None:
        """Make a profile, labelled as the resource of this name. It is not brought up."""

    async def change(self, uuid: str, settings: Settings, secrets: Secrets, *, keep: bool) -> None:
        """Set these settings, and these secrets; everything else stays as it is."""

    async def delete(self, uuid: str) -> None:
        """Take a profile away, and what uses it down. Free when there is none."""

    async def activate(self, uuid: str, interface: str | None) -> None:
        """Begin to use it, in place of whatever is used there."""

    async def apply(self, uuid: str) -> bool:
        """Have the interface that uses it take on what has changed, without a break; False if it cannot."""
        ...

    async def deactivate(self, uuid: str) -> None:
        """Use it no more. Free when it is not used."""

    async def snapshot(self, uuid: str) -> bytes:
        """Return the whole profile, its secrets included."""
        ...

    async def restore(self, snapshot: bytes, *, keep: bool) -> None:
        """Have the profile be exactly as it was; it is made again if it is gone. It is not brought up."""

    def settings_in(self, snapshot: bytes) -> Settings:
        """Return the known settings of a snapshot."""
        ...

    def secrets_in(self, snapshot: bytes) -> Mapping[str, str]:
        """Return the known secrets of a snapshot."""
        ...

    async def checkpoint(self, interfaces: Collection[str], *, within_s: int) -> str:
        """Note how these interfaces and their profiles are now: its name.

        Unless `commit` is called within *within_s*, the daemon itself puts all of it back, whatever became
        of us. Raises `CheckpointTaken`.
        """
        ...

    async def waits(self, checkpoint: str) -> bool:
        """Return whether that checkpoint is neither committed nor put back yet."""
        ...

    async def commit(self, checkpoint: str) -> bool:
        """Let all of it stay; False when it has been put back already."""
        ...

    async def roll_back(self, checkpoint: str) -> None:
        """Put all of it back now. Free when that has happened already."""

"""Place: what a package is told of the device when it is asked what it offers there."""

from __future__ import annotations

from pathlib import Path

import attrs

from .assets import Assets, NoAssets
from .container_turns import ContainerTurns
from .nearby import NearbyImages
from .reconciler import Backups, Reachability, Records
from .scoping import ScopedBackups, ScopedRecords
from .secret_values import SecretValues
from .stage import Policy

__all__ = ["Place"]


@attrs.frozen(kw_only=True)
class Place:
    """One device, and where a reconciler there keeps what it has to remember."""

    root: Path
    """/ on a device. Any other directory stands for one: everything is read and written below it."""
    secrets_directory: Path
    """Where the files are that a `SecretRef` names."""
    secret_values: SecretValues = attrs.field(factory=SecretValues, repr=False)
    """What the words stand for that are in resources in place of secrets."""
    assets: Assets = attrs.field(factory=NoAssets)
    """Where the content of assets and downloads is."""
    nearby_images: NearbyImages = attrs.field(factory=NearbyImages)
    """Where images are at hand, beside their registries."""
    container_turns: ContainerTurns = attrs.field(factory=ContainerTurns, repr=False)
    """Whose turn it is with a container, where several reconcilers work on it."""
    podman_url: str
    """Where podman listens."""
    records: Records
    """What is remembered of resources across restarts, kept beside the ledger."""
    backups: Backups
    """What stood there before, kept so that it can come back."""
    reachability: Reachability
    """Whether the control plane can still be reached."""
    policy: Policy
    """What the device allows. The Stage asks before every verb; ask again before what happens much later."""

    @property
    def why_no_machine(self) -> str | None:
        """Why nothing that a folder has not, such as a daemon, is to be offered here; None on a device."""
        if self.root == Path("/"):
            return None
        return f"this device is the folder {self.root}, which offers files and directories only"

    def remedy(self, command: str) -> str:
        """Return the words that tell somebody to run *command* and then restart the agent."""
        return f"run: {command}, and then systemctl restart harmony-agent"

    def scoped(self, name: str) -> Place:
        """Return the same place with `records` and `backups` of its own, which do not show those of others.

        Use this to run two reconcilers of one resource type on one device. *name* must be the same at every
        start; otherwise what was remembered is not found again.
        """
        return attrs.evolve(
            self,
            records=ScopedRecords(self.records, name),
            backups=ScopedBackups(self.backups, name),
        )

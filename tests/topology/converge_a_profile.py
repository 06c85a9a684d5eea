"""A process that converges one profile, to be killed meanwhile.

    python -m tests.topology.converge_a_profile SPEC

It says "ready", begins when it is told to, and says "done". What it must remember is on disk, as an agent's
is.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs

from harmony_agent.store.backups import DirectoryBackups
from harmony_core.resources import NetworkProfile
from harmony_pi_topology.network.networkmanager import SdbusNetworkManager
from tests.topology.converge_a_unit import FileRecords
from tests.topology.killing import converged_when_told

__all__ = ["Probe", "Spec", "opened"]


@attrs.frozen(kw_only=True)
class Spec:
    """What the process is told."""

    address: str
    memory: str
    probe: Sequence[str]
    """A command that ends well when the control plane is reached."""
    profile: str


@attrs.frozen
class Probe:
    """`Reachability` by a command."""

    command: Sequence[str]

    async def reachable(self) -> bool:
        process = await asyncio.create_subprocess_exec(
            *self.command, stderr=asyncio.subprocess.DEVNULL
        )
        return await process.wait() == 0


def opened(spec: Spec) -> SdbusNetworkManager:
    memory = Path(spec.memory)
    return SdbusNetworkManager(
        records=FileRecords(memory / "records.json"),
        backups=DirectoryBackups(memory / "originals"),
        reachability=Probe(spec.probe),
        secrets_directory=spec.memory,
        address=spec.address,
    )


async def converge(spec: Spec) -> None:
    network = opened(spec)
    profile = NetworkProfile.model_validate_json(spec.profile)
    await converged_when_told(network, profile)


if __name__ == "__main__":
    asyncio.run(converge(Spec(**json.loads(sys.argv[1]))))

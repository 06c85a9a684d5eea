"""A process that converges one container, to be killed meanwhile.

    python -m tests.topology.converge_a_container SPEC

It says "ready", begins when it is told to, and says "done". What it must remember is in a file, as an agent's
ledger is.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import attrs

from harmony_core.resources import Container
from harmony_core.secret_values import SecretValues
from harmony_pi_topology.containers.reconciler import PodmanContainers
from tests.topology.converge_a_unit import FileRecords
from tests.topology.killing import converged_when_told

__all__ = ["Spec"]


@attrs.frozen(kw_only=True)
class Spec:
    """What the process is told."""

    url: str
    root: str
    records: str
    container: str
    secrets: dict[str, str] = attrs.field(factory=dict[str, str])
    """Values by their words."""


async def converge(spec: Spec) -> None:
    values = SecretValues()
    for word, value in spec.secrets.items():
        values.put(word, value)
    containers = PodmanContainers(
        spec.url, records=FileRecords(Path(spec.records)), root=spec.root, secret_values=values
    )
    container = Container.model_validate_json(spec.container)
    await converged_when_told(containers, container)


if __name__ == "__main__":
    asyncio.run(converge(Spec(**json.loads(sys.argv[1]))))

"""A process that converges one unit, to be killed meanwhile: python -m tests.topology.converge_a_unit SPEC.

It says "ready", begins when it is told to, and says "done". What it must remember is in a file, as an agent's
ledger is.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import attrs

from harmony_core.reconciler import JsonRecord, MemoryBackups, MemoryRecords
from harmony_core.resources import SystemdUnit
from harmony_pi_topology.posix.root import Root
from harmony_pi_topology.systemd.reconciler import SdbusSystemd
from tests.topology.killing import converged_when_told

__all__ = ["FileRecords", "Spec"]


@attrs.frozen(kw_only=True)
class Spec:
    """What the process is told."""

    address: str
    root: str
    records: str
    unit: str


class FileRecords(MemoryRecords):
    """Records that outlive the process."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        if path.exists():
            self._records = json.loads(path.read_text())

    async def put(self, resource_id: str, record: JsonRecord) -> None:
        await super().put(resource_id, record)
        self._save()

    async def forget(self, resource_id: str) -> None:
        await super().forget(resource_id)
        self._save()

    def _save(self) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(self._records))
        fresh.rename(self._path)


async def converge(spec: Spec) -> None:
    units = SdbusSystemd(
        records=FileRecords(Path(spec.records)),
        backups=MemoryBackups(),
        address=spec.address,
        files=Root(spec.root),
    )
    unit = SystemdUnit.model_validate_json(spec.unit)
    await converged_when_told(units, unit)


if __name__ == "__main__":
    asyncio.run(converge(Spec(**json.loads(sys.argv[1]))))

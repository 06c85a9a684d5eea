"""Containers that are kept at rest while the data of a volume is saved or replaced.

What is under way stands in one record, written before anything is touched. For as long as it does, nobody
starts what was paused or stopped for it; and whoever finds it at the agent's start finishes it.
"""

from __future__ import annotations

from harmony_core.change import NotReady
from harmony_core.reconciler import JsonRecord, Records
from harmony_core.resources import Container

__all__ = ["TRANSFER", "find_quiet"]

TRANSFER = "volume-transfer:now"
"""Under which it is recorded: one at a time."""
_WORDS = {"save": "saved", "load": "replaced"}
_LOOK_AGAIN_S = 2.0


def find_quiet(records: Records, container: Container) -> NotReady | None:
    """Return why *container* must be left alone now: the data of a volume that it sees is being copied; None
    where it need not be."""
    record: JsonRecord | None = records.get(TRANSFER)
    if record is None:
        return None
    sees = {mount.volume for mount in container.volumes}
    if container.name not in record["containers"] and record["volume"] not in sees:
        return None
    return NotReady(
        f"{container.name} waits until the data of volume {record['volume']} is {_WORDS[record['op']]}",
        resource=container.id,
        reason="Progressing",
        look_again_s=_LOOK_AGAIN_S,
    )

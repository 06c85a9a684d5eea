"""A process that converges a container and the volumes that it sees, to be killed meanwhile.

    python -m tests.topology.converge_an_application SPEC

As `tests.topology.converge_a_container`; what is wanted no more, it takes away first.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import attrs

from harmony_core.change import Change
from harmony_core.errors import TransientError
from harmony_core.resources import Container, Volume
from harmony_pi_topology.containers.reconciler import PodmanContainers
from harmony_pi_topology.volumes.podman_volumes import PodmanVolumes
from tests.topology.converge_a_unit import FileRecords

__all__ = ["Spec", "converge"]


@attrs.frozen(kw_only=True)
class Spec:
    """What the process is told."""

    url: str
    root: str
    records: str
    volumes: tuple[str, ...]
    """As JSON, and so is the container."""
    container: str
    removed: tuple[str, ...] = ()
    """The names of containers that are wanted no more."""
    removed_volumes: tuple[str, ...] = ()
    saved: tuple[str, str] | None = None
    """A volume, and the file to which it is saved first."""
    loaded: tuple[str, str] | None = None
    """A volume, and the file from which it is loaded first."""


async def converge(spec: Spec) -> None:
    """Take away, and make, until nothing is pending; like a work queue, try again what may pass."""
    records = FileRecords(Path(spec.records))
    containers = PodmanContainers(spec.url, records=records, root=spec.root)
    volumes = PodmanVolumes(spec.url, records=records, root=spec.root)
    await _transfer(volumes, spec)
    wish = Container.model_validate_json(spec.container)
    wanted = [Volume.model_validate_json(each) for each in spec.volumes]
    for name in spec.removed:
        await _whole(partial(containers.remove, [name], apply=True))
    for name in spec.removed_volumes:
        await _whole(partial(volumes.remove, [name], apply=True))
    await _whole(partial(volumes.converge, wanted, apply=True))
    await _whole(partial(containers.converge, [wish], apply=True))
    await containers.close()
    await volumes.close()


async def _transfer(volumes: PodmanVolumes, spec: Spec) -> None:
    """As an agent does: what the last one has left is finished, before anything else is saved or loaded."""
    await volumes.recover_volumes()
    if spec.saved is not None:
        name, file = spec.saved
        Path(file).unlink(missing_ok=True)
        await volumes.save_volume(name, Path(file), stop=True, settle=_settled, tell=_heard)
    if spec.loaded is not None:
        name, file = spec.loaded
        await volumes.load_volume(name, Path(file), keep_previous=False, settle=_settled)


async def _settled() -> None:
    """Nobody else is at work here."""


def _heard(_done_bytes: int, _of_bytes: int) -> None:
    """Nobody looks."""


async def _whole(step: Callable[[], Awaitable[Sequence[Change | Exception]]]) -> None:
    results: Sequence[Change | Exception] = ()
    for _ in range(100):
        results = await step()
        if failed := next((each for each in results if isinstance(each, Exception)), None):
            if not isinstance(failed, TransientError):
                raise failed
            await asyncio.sleep(0.2)
            continue
        pending = [each.pending for each in results if isinstance(each, Change) and each.pending]
        if not pending:
            return
        await asyncio.sleep(min(each.look_again_s for each in pending))
    raise AssertionError(f"it does not come to an end: {results}")


if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    asyncio.run(converge(Spec(**json.loads(sys.argv[1]))))
    print("done", flush=True)

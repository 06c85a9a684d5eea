"""How often a container was started again, by podman's count and by ours, whichever was quicker."""

from __future__ import annotations

import attrs

from harmony_core.reconciler import MemoryRecords
from harmony_pi_topology.containers.records import ContainerRestarts

from .test_container_judge import FOUND


async def test_what_podman_forgets_is_kept_and_what_it_counts_is_not_counted_twice() -> None:
    restarts = ContainerRestarts(MemoryRecords())
    by_itself = attrs.evolve(FOUND, restarts=2)
    assert restarts.count(by_itself) == 2
    await restarts.record_restart(by_itself)
    started_by_us = attrs.evolve(FOUND, restarts=0)
    await restarts.record_start(by_itself, started_by_us)
    assert restarts.count(started_by_us) == 3
    await restarts.record_restart(started_by_us)
    podman_was_quicker = attrs.evolve(FOUND, restarts=1)
    await restarts.record_start(started_by_us, podman_was_quicker)
    assert restarts.count(podman_was_quicker) == 4
    await restarts.record_restart(podman_was_quicker)
    quicker_again = attrs.evolve(FOUND, restarts=2)
    await restarts.record_start(podman_was_quicker, quicker_again)
    assert restarts.count(quicker_again) == 5
    assert restarts.count(attrs.evolve(FOUND, id="2")) == 0
    await restarts.forget("web")
    assert restarts.count(quicker_again) == 2

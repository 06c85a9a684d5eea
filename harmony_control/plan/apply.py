"""Makes what is signed as a folder says: just what differs, each by compare-and-swap.

    manifests of devices (labels first: by them devices belong to classes) -> new generations of classes

Who is interrupted anywhere does it again: what is written already does not differ any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import attrs
from nats.aio.client import Client

from harmony_control.bus.reports import Reports
from harmony_control.push.push import Contents, Pushed, push
from harmony_control.rollout.documents import ClassDocuments
from harmony_control.rollout.publish import Published, publish
from harmony_control.store.home import Home

from .plan import DeviceChange, Plan

__all__ = ["apply_plan"]


async def apply_plan(
    home: Home,
    client: Client,
    documents: ClassDocuments,
    reports: Reports,
    plan: Plan,
    *,
    prune: bool,
) -> AsyncIterator[tuple[str, Pushed] | Published]:
    """Write what *plan* says, and yield each thing that was written. With *prune*, classes that the folder
    does not have lose all their Scores.

    Raises what `push` and `publish` raise; what was yielded before is written.
    """
    for change in plan.devices:
        yield change.id, await _push(home, client, documents, change)
    for each in (*plan.classes, *(plan.retired if prune else ())):
        yield await publish(documents, reports, each.name, each.wish)


async def _push(
    home: Home, client: Client, documents: ClassDocuments, change: DeviceChange
) -> Pushed:
    def wanted(found: Contents) -> Contents:
        return attrs.evolve(
            found,
            scores=found.scores if change.wanted_scores is None else change.wanted_scores,
            labels=change.wanted_labels,
            without=change.wanted_without,
        )

    pushed = await push(home, client, change.id, wanted, signers=documents.signers)
    return attrs.evolve(
        pushed,
        changed=frozenset((*change.scores.added, *change.scores.changed)),
        removed=frozenset(change.scores.removed),
    )

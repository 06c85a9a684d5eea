"""Makes what is signed as a folder says: just what differs, each by compare-and-swap.

    manifests of devices (labels first: by them devices belong to classes) -> new generations of classes

Who is interrupted anywhere does it again: what is written already does not differ any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import attrs
from nats.aio.client import Client

from harmony_control.bus.reports import Reports
from harmony_control.push.push import Contents, Pushed, push
from harmony_control.rollout.documents import ClassDocuments, Standing
from harmony_control.rollout.publish import Published, Wish, publish
from harmony_control.store.home import Home
from harmony_core.errors import RevisionConflict

from .plan import ClassChange, DeviceChange, Plan

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
    does not have lose all their Scores, through their own waves and windows.

    Raise `OutOfScope`, before anything is written, where those who would sign may not sign for one of these
    classes or devices; `RevisionConflict` where something else was written since it was planned, which then
    stays; and what `push` and `publish` raise. What was yielded before is written.
    """
    classes = (*plan.classes, *(plan.retired if prune else ()))
    for unsigned in [each.unsigned for each in plan.devices] + [each.unsigned for each in classes]:
        if unsigned is not None:
            raise unsigned
    for change in plan.devices:
        yield change.id, await _push(home, client, documents, change)
    for each in classes:
        yield await publish(documents, reports, each.name, partial(_heed_class, each))


def _heed_class(change: ClassChange, standing: Standing) -> Wish:
    planned, now = (each.generation if each else 0 for each in (change.before, standing.manifest))
    if now != planned:
        raise _conflict(f"the class {change.name}", now, planned)
    return change.wish


def _conflict(what: str, now: int, planned: int) -> RevisionConflict:
    return RevisionConflict(
        f"{what} has generation {now} by now, and was planned upon {planned}; nothing of it was written: "
        "look at what would change now, harmony plan"
    )


def _keep_replaced(change: DeviceChange, contents: Contents) -> Contents:
    """Return of *contents* what *change* replaces."""
    return attrs.evolve(contents, scores={}) if change.wanted_scores is None else contents


async def _push(
    home: Home, client: Client, documents: ClassDocuments, change: DeviceChange
) -> Pushed:
    before = Contents.of(change.before)

    def wanted(found: Contents) -> Contents:
        if not _keep_replaced(change, found).says_the_same_as(_keep_replaced(change, before)):
            raise _conflict(change.id, found.generation, before.generation)
        return attrs.evolve(
            found,
            scores=found.scores if change.wanted_scores is None else change.wanted_scores,
            labels=change.wanted_labels,
            without=change.wanted_without,
        )

    named = () if change.wanted_scores is None else change.wanted_scores
    pushed = await push(home, client, change.id, wanted, named=named, signers=documents.signers)
    return attrs.evolve(
        pushed,
        changed=frozenset((*change.scores.added, *change.scores.changed)),
        removed=frozenset(change.scores.removed),
    )

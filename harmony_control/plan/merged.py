"""What a device would be in all by a folder: its own Scores, and those of every class that selects it."""

from __future__ import annotations

from collections.abc import Sequence

from harmony_control.bus.reports import Reports, Seen
from harmony_control.rollout.documents import ClassDocuments
from harmony_control.rollout.members import read_manifests
from harmony_core.errors import UsageError
from harmony_core.wire.layers import explain_conflict, merge
from harmony_core.wire.manifest import Manifest, SerializedScore
from harmony_core.wire.selector import parse_selector

from .folder import Folder
from .followed import make_own, to_layer
from .plan import make_plan, make_wish, read_classes, serialize_all

__all__ = ["merge_for"]


async def merge_for(
    documents: ClassDocuments,
    reports: Reports,
    folder: Folder,
    agent_id: str,
    *,
    resolve: bool = True,
) -> Sequence[SerializedScore]:
    """Return every Score that the device would have after all of *folder* has reached it.

    Classes that the folder does not have stay. Raise what `make_plan` raises for a folder that cannot be
    applied.
    """
    await make_plan(documents, reports, folder, resolve=False)
    own = await _own(documents, await reports.read_seen(agent_id), folder, resolve)
    index = await documents.read_index()
    layers = [
        to_layer(documents.fleet, name, await make_wish(documents.home, folder, name, resolve))
        for name, spec in folder.spec.classes.items()
        if parse_selector(spec.selector).matches(own.labels)
    ]
    known = await read_classes(documents, index)
    layers += [
        found.layer
        for name, each in known.items()
        if name not in folder.spec.classes
        and (found := each.find_layer()) is not None
        and found.selector.matches(own.labels)
    ]
    merged = merge(own, layers)
    if merged.too_many:
        raise UsageError(
            f"{', '.join(sorted(merged.too_many))}: with these, {agent_id} would have more Scores than a "
            "device can report on; give it fewer"
        )
    for score, between in merged.conflicts.items():
        raise UsageError(explain_conflict(score, between, agent_id))
    return list(merged.entries.values())


async def _own(documents: ClassDocuments, seen: Seen, folder: Folder, resolve: bool) -> Manifest:
    """Return its own manifest, with what *folder* says of it."""
    agent_id = seen.agent_id
    found = (await read_manifests(documents, [seen])).get(agent_id)
    spec = folder.spec.devices.get(agent_id)
    scores = None
    if agent_id in folder.device_scores:
        scores = await serialize_all(
            documents.home, folder.device_scores[agent_id], resolve=resolve
        )
    had = found.labels if found else {}, found.without if found else ()
    labels, without = (spec.labels, spec.without) if spec else had
    return make_own(documents.fleet, agent_id, found, labels=labels, without=without, scores=scores)

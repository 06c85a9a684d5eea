"""What was wanted of a device before: as far as the bucket and the operator's own store reach.

    the bucket's last values + our own last envelopes  ->  verified, each generation once  ->  History

A value that does not verify with a key that is trusted here is counted and never built upon: nobody gets old
content signed anew that no operator of ours has signed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import attrs
from nats.aio.client import Client

from harmony_control.bus.connection import Bucket
from harmony_control.store.home import Home
from harmony_core.errors import ManifestRejected, UsageError
from harmony_core.wire.manifest import Accepted, Manifest, SerializedScore
from harmony_core.wire.names import DESIRED_STATE

from .base_revision import read_push_target

__all__ = ["Differences", "Generation", "History", "explain_conflict", "read_history"]

_TOLD_MOST = 3


@attrs.frozen(kw_only=True)
class Differences:
    """By what one manifest differs from another: ids of Scores, names of labels, and the order of Scores."""

    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    relabelled: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    """Which Scores of its classes the device does without that it had before."""
    taken_back: tuple[str, ...] = ()
    """Which Scores of its classes it has again that it did without."""
    is_reordered: bool = False
    """Whether Scores that both have come in another order."""

    def __bool__(self) -> bool:
        return self != Differences()

    def to_fields(self) -> Mapping[str, object]:
        """Return the differences by name, as ``--json`` prints them."""
        return {
            "added": list(self.added),
            "replaced": list(self.replaced),
            "removed": list(self.removed),
            "relabelled": list(self.relabelled),
            "left_out": list(self.left_out),
            "taken_back": list(self.taken_back),
            "reordered": self.is_reordered,
        }

    def in_words(self) -> str:
        """Return the differences in one line, such as ``+web ~motd -issue label:role +without:door order``;
        empty where there are none."""
        marked = [
            *(f"+{name}" for name in self.added),
            *(f"~{name}" for name in self.replaced),
            *(f"-{name}" for name in self.removed),
            *(f"label:{name}" for name in self.relabelled),
            *(f"+without:{name}" for name in self.left_out),
            *(f"-without:{name}" for name in self.taken_back),
            *(["order"] if self.is_reordered else []),
        ]
        return " ".join(marked)


@attrs.frozen(kw_only=True)
class Generation:
    """One manifest of the past, or the newest."""

    manifest: Manifest
    signed_by: tuple[str, ...]
    """Ids of keys."""
    changes: Differences | None = None
    """Against the one before; None for the first that can be read, where nothing is known of it."""

    @property
    def number(self) -> int:
        return self.manifest.generation

    def since(self, other: Manifest) -> Differences:
        """Return the differences from *other* to this generation."""
        return _differences(other, self.manifest)


@attrs.frozen(kw_only=True)
class History:
    """Of one device, the oldest first."""

    agent_id: str
    generations: tuple[Generation, ...]
    strangers: int = 0
    """Values, in the bucket or kept here, that no operator trusted here has signed."""

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of the newest generation."""
        return self.generations[-1].manifest.labels if self.generations else {}

    def name_of(self, generation: Generation) -> str:
        """Return its number, with the epoch before it where there is more than one."""
        epochs = {each.manifest.epoch for each in self.generations}
        epoch = f"{generation.manifest.epoch}:" if len(epochs) > 1 else ""
        return f"{epoch}{generation.number}"

    def target(self, to: int | tuple[int, int] | None) -> Generation:
        """Return the generation to return to, by its number or by its epoch and number. Raise `UsageError`
        when it is not available any more, nothing would change, or several epochs have that number."""
        if not self.generations:
            raise UsageError(
                f"nothing that was pushed to {self.agent_id} can be read: neither the bucket nor this "
                "directory has it; push it with `harmony push-score`"
            )
        newest = self.generations[-1]
        older = [each for each in self.generations if each.since(newest.manifest)]
        if to is None:
            if not older:
                raise UsageError(
                    f"{self.agent_id}: no earlier revision differs from the newest, "
                    f"{self.name_of(newest)}; push what is wanted with `harmony push-score`"
                )
            return older[-1]
        named = [each for each in self.generations if to in (each.number, each.manifest.order)]
        told = f"{to[0]}:{to[1]}" if isinstance(to, tuple) else str(to)
        if not named:
            raise UsageError(
                f"revision {told} of {self.agent_id} cannot be read any more; choose one of: "
                f"{self._names(older)}"
            )
        if len(named) > 1:
            raise UsageError(
                f"revision {told} of {self.agent_id} was signed in more than one epoch; choose one of: "
                f"{self._names(named)}"
            )
        (found,) = named
        if found not in older:
            raise UsageError(
                f"revision {told} of {self.agent_id} is the same as the newest, {self.name_of(newest)}; "
                f"choose one of: {self._names(older)}"
            )
        return found

    def _names(self, generations: Iterable[Generation]) -> str:
        return ", ".join(map(self.name_of, generations)) or "none"


def explain_conflict(looked_at: History, now: History) -> str:
    """Return who has pushed what since *looked_at* was read, according to the history *now*, and what to
    do."""
    newest = max((each.manifest.order for each in looked_at.generations), default=(0, 0))
    later = [each for each in now.generations if each.manifest.order > newest]
    if not later:
        return (
            "the message server holds something else for it than the newest revision that "
            f"`harmony history {now.agent_id}` shows; push what is wanted with `harmony push-score`"
        )
    told = "; ".join(
        f"generation {now.name_of(each)} was pushed meanwhile, signed by "
        f"{', '.join(key[:12] for key in each.signed_by)}"
        f" ({each.changes.in_words() or 'no change' if each.changes else 'all is new'})"
        for each in later[-_TOLD_MOST:]
    )
    return (
        f"{told}; see `harmony history {now.agent_id}`, and roll back again if that is to go, too"
    )


async def read_history(home: Home, client: Client, agent_id: str) -> History:
    """Return every generation that can be read. Raise `StoreError`s, and `ConfigError` without an operator's
    key."""
    place = await read_push_target(home, client, agent_id)
    in_bucket = [each.value for each in await Bucket(client, DESIRED_STATE).history(agent_id)]
    own = await asyncio.to_thread(home.past_manifests, agent_id)
    stored = await asyncio.to_thread(home.read_stored_manifest, agent_id)
    read: list[Accepted] = []
    strangers = 0
    for envelope in [*in_bucket, *own, *([stored] if stored else [])]:
        try:
            read.append(place.accept(envelope))
        except ManifestRejected:
            strangers += 1
    return History(agent_id=agent_id, generations=tuple(_in_order(read)), strangers=strangers)


def _in_order(read: Iterable[Accepted]) -> list[Generation]:
    once = {each.manifest.order: each for each in read}
    ordered: list[Generation] = []
    for _, each in sorted(once.items()):
        before = ordered[-1].manifest if ordered else None
        changes = None if before is None else _differences(before, each.manifest)
        ordered.append(Generation(manifest=each.manifest, signed_by=each.keyids, changes=changes))
    return ordered


def _differences(before: Manifest, after: Manifest) -> Differences:
    old, new = _by_id(before), _by_id(after)
    return Differences(
        added=tuple(sorted(new.keys() - old.keys())),
        replaced=tuple(sorted(name for name in new.keys() & old.keys() if new[name] != old[name])),
        removed=tuple(sorted(old.keys() - new.keys())),
        relabelled=tuple(
            sorted({name for name, _ in before.labels.items() ^ after.labels.items()})
        ),
        left_out=tuple(sorted({*after.without} - {*before.without})),
        taken_back=tuple(sorted({*before.without} - {*after.without})),
        is_reordered=[name for name in old if name in new] != [name for name in new if name in old],
    )


def _by_id(manifest: Manifest) -> Mapping[str, SerializedScore]:
    return {entry.id: entry for entry in manifest.scores}

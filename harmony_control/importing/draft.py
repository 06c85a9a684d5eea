"""Scores as they are put together: each part with where it was said, where its faults are told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias, cast

import attrs
from pydantic import ValidationError

from harmony_control.push.entries import AnyEntry, Entry
from harmony_core.errors import HarmonyError, NotImportable
from harmony_core.plugins import Registry
from harmony_core.resources import all_problems
from harmony_core.wire.manifest import SerializedScore
from harmony_core.wire.names import is_id

__all__ = ["Draft", "Imported", "Importing", "Key", "Reader"]

Key: TypeAlias = tuple[str, str]
"""What a draft is called while there are no ids: its kind, and its name, or the path of what has none."""
_ID_MOST = 63
_SUFFIXES = {"VolumeScore": "-volume", "ContainerNetworkScore": "-network"}


@attrs.frozen
class Imported:
    """What was read: entries as a Score file has them, by id, and what had no meaning, each said once."""

    entries: Mapping[str, AnyEntry]
    notes: Sequence[str] = ()


@attrs.define
class Draft:
    """One Score. *where* is what is being read: a flag, or a file with its line and key."""

    importing: Importing
    kind: str
    where: str = ""
    directory: Path = attrs.field(factory=Path)
    """What paths of files to be read here are relative to."""
    called: str = ""
    """What its id is made of, where that is not its name."""
    spec: dict[str, Any] = attrs.field(factory=dict[str, Any])
    origins: dict[tuple[int | str, ...], str] = attrs.field(
        factory=dict[tuple[int | str, ...], str]
    )
    after: list[Key] = attrs.field(factory=list[Key])
    later: dict[str, list[tuple[str, str]]] = attrs.field(factory=dict[str, list[tuple[str, str]]])
    """Values, each with where it was said, that mean something only together with others."""

    @property
    def key(self) -> Key:
        return self.kind, str(self.spec.get("name") or self.spec.get("path", ""))

    def read(self, where: str, reader: Reader, value: str) -> None:
        """Have *reader* take *value*. What it refuses is noted as a fault of *where*."""
        self.where = where
        try:
            reader(self, value)
        except ValueError as error:
            self.importing.refuse(where, str(error))

    def put(self, field: str, value: object) -> None:
        """Set a field. As with podman, what is said last counts."""
        self.spec[field] = value
        self.origins[(field,)] = self.where

    def add(self, field: str, value: object) -> None:
        """Add to a field that is a list."""
        values = self.spec.setdefault(field, [])
        self.origins[field, len(values)] = self.where
        values.append(value)

    def put_key(self, field: str, name: str, value: object) -> None:
        """Set what is under *name* in a field that is an object."""
        self.spec.setdefault(field, {})[name] = value
        self.origins[field, name] = self.where

    def keep(self, what: str, value: str) -> None:
        """Keep *value* until all is read."""
        self.later.setdefault(what, []).append((self.where, value))

    def note(self, why: str) -> None:
        """Say that what is being read has no meaning here."""
        self.importing.note(self.where, why)

    def name_another(self, kind: str, name: str) -> None:
        """Wait for the Score of *kind* and *name*, and make it where nothing that is imported is it."""
        self.importing.named.setdefault((kind, name), self.where)
        if (kind, name) not in self.after:
            self.after.append((kind, name))

    def where_of(self, path: Sequence[int | str], told: str) -> str:
        """Return where that was said of which something is wrong, at *path* of the spec, as *told*."""
        told = told.partition(", not ")[0]
        named = told.partition(":")[0].split(".")
        path = path or [int(part) if part.isdecimal() else part for part in named]
        for end in range(len(path), 0, -1):
            if (found := self.origins.get(tuple(path[:end]))) is not None:
                return found
        below = [said for said in self.origins if said[0] == path[0]]
        exact = [said for said in below if any(_tells(told, name) for name in self._names_in(said))]
        return ", ".join(dict.fromkeys(self.origins[said] for said in exact or below))

    def _names_in(self, said: tuple[int | str, ...]) -> list[str]:
        """Return the words by which a message may tell which part of a field it means."""
        if isinstance(last := said[-1], str):
            return [last]
        part: object = self.spec[str(said[0])][last]
        texts = cast("dict[str, object]", part).values() if isinstance(part, dict) else [part]
        return [text for text in texts if isinstance(text, str)]


Reader: TypeAlias = Callable[[Draft, str], None]
"""Reads the value of one flag or key into a draft. ValueError says what is wrong, and what to do."""


@attrs.define
class Importing:
    """All that is read at one time: drafts, what they name, what is wrong, and what has no meaning."""

    drafts: list[Draft] = attrs.field(factory=list[Draft])
    named: dict[Key, str] = attrs.field(factory=dict[Key, str])
    """Volumes and networks that a container names, with where."""
    faults: list[str] = attrs.field(factory=list[str])
    _notes: dict[str, list[str]] = attrs.field(factory=dict[str, list[str]])

    def draft(self, kind: str, directory: Path | None = None) -> Draft:
        """Return a new draft, which is one of what is imported."""
        made = Draft(self, kind, directory=directory or Path())
        self.drafts.append(made)
        return made

    def refuse(self, where: str, told: str) -> None:
        """Note a fault. All are told at once, by `finish`."""
        fault = f"{where}: {told}" if where else told
        if fault not in self.faults:
            self.faults.append(fault)

    def note(self, where: str, why: str) -> None:
        """Say that *where* has no meaning here, and why."""
        said = self._notes.setdefault(why, [])
        if where not in said:
            said.append(where)

    def finish(self, registry: Registry) -> Imported:
        """Return all of it, validated by the kinds themselves; `NotImportable` with all that is wrong."""
        made = {draft.key for draft in self.drafts}
        others = [
            Draft(self, kind, spec={"name": name}, origins={("name",): where})
            for (kind, name), where in self.named.items()
            if (kind, name) not in made
        ]
        drafts = sorted([*others, *self.drafts], key=lambda each: each.kind == "ContainerScore")
        ids = self._choose_ids(drafts)
        entries = {
            ids[draft.key]: entry
            for draft in drafts
            if (entry := self._decode(draft, ids, registry)) is not None
        }
        if self.faults:
            raise NotImportable("\n".join(self.faults))
        notes = [f"{', '.join(where)}: {why}" for why, where in self._notes.items()]
        return Imported(entries, notes)

    def _choose_ids(self, drafts: Iterable[Draft]) -> dict[Key, str]:
        ids: dict[Key, str] = {}
        for draft in sorted(drafts, key=lambda each: each.kind in _SUFFIXES):
            if draft.key in ids:
                self.refuse(
                    draft.where_of(("name",), ""),
                    f"the name {draft.key[1]} is used twice; rename one",
                )
                continue
            name, suffix = draft.called or draft.key[1], _SUFFIXES.get(draft.kind, "")
            ids[draft.key] = next(
                each for each in _ids_of(name, suffix) if each not in ids.values()
            )
        return ids

    def _decode(self, draft: Draft, ids: Mapping[Key, str], registry: Registry) -> AnyEntry | None:
        after = tuple(ids[key] for key in draft.after if key in ids)
        try:
            version = registry.find(draft.kind).version
            parsed = SerializedScore(
                id=ids[draft.key], kind=draft.kind, version=version, spec=draft.spec, after=after
            )
            return Entry(registry.decode(parsed), parsed.after)
        except HarmonyError as error:
            cause = error.__cause__
            if not isinstance(cause, ValidationError):
                raise
            for path, told in all_problems(cause, registry.find(draft.kind)):
                self.refuse(draft.where_of(path, told), told)
            return None


def _tells(told: str, name: str) -> bool:
    """Return whether *told* has *name* as a word."""
    return re.search(rf"(?<![\w/]){re.escape(name)}(?!\w)", told) is not None


def _ids_of(name: str, suffix: str) -> Iterator[str]:
    """Yield the ids that what is called *name* may have, the best first: another may have that."""
    yield _id_of(name, "")
    yield _id_of(name, suffix)
    for number in count(2):
        yield _id_of(name, f"{suffix}-{number}")


def _id_of(name: str, suffix: str) -> str:
    """Return an id for what is called *name*: lower-case letters, digits and inner hyphens."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    made = plain[: _ID_MOST - len(suffix)].rstrip("-") + suffix
    return made if is_id(made) else f"imported{suffix}"

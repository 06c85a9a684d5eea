"""All that is wrong with compose files, collected to be told at once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path as FilePath

from harmony_core.errors import ComposeFileError

from .tree import Path, Place, dotted

__all__ = ["Faults", "Wrong", "shown", "why_empty"]

_TOLD_MOST = 20


class Wrong(Exception):
    """What is wrong with one value. It becomes a fault where the value's place is known."""

    def __init__(self, told: str) -> None:
        super().__init__(told)
        self.told = told


class Faults:
    """What is wrong, each with its file, line and key; and ``notes`` of what is left out."""

    def __init__(self) -> None:
        self._told: dict[tuple[Place, Path], list[str]] = {}
        self._notes: dict[str, str] = {}
        self.unset: dict[Place, dict[str, None]] = {}
        """The variables that are not set, and so empty, by the line on which they stand."""

    def add(self, place: Place, path: Path, told: str) -> None:
        """Add what is wrong at *path*, which is at *place*. Do not report faults that only follow from one
        there."""
        known = self._told.setdefault((place, path), [])
        if not known or not path:
            known.append(told)

    def note(self, subject: str, told: str) -> None:
        """Note something that is not a fault, once for each *subject*."""
        self._notes.setdefault(subject, told)

    def unset_at(self, place: Place) -> Callable[[str], None]:
        """Return a function that notes that a variable at *place* is not set, and is therefore empty."""

        def note(name: str) -> None:
            self.unset.setdefault(place, {}).setdefault(name)
            told = f"{place.file}:{place.line}: the variable {name} is not set, and is empty here"
            self.note(f"${name}", told)

        return note

    @property
    def notes(self) -> tuple[str, ...]:
        """All notes, in the order in which they came up."""
        return tuple(self._notes.values())

    def is_below(self, path: Path) -> bool:
        """Return whether something is wrong at *path* or below it."""
        return any(each[: len(path)] == path for _, each in self._told)

    def check(self) -> None:
        """Raise one `ComposeFileError` with all faults, in the order of the files."""
        if not self._told:
            return
        told = [
            f"{place.file}:{place.line}: {dotted(path)}{': ' if path else ''}{words}"
            f"{why_empty(self.unset.get(place, ()))}"
            for (place, path), several in sorted(self._told.items(), key=lambda each: each[0][0])
            for words in dict.fromkeys(several)
        ]
        if len(told) > _TOLD_MOST:
            told[_TOLD_MOST:] = [f"and {len(told) - _TOLD_MOST} more"]
        raise ComposeFileError("\n".join(told))


def why_empty(unset: Collection[str]) -> str:
    """Return the words to add to a fault on a line that uses the variables *unset*; empty where there are
    none."""
    if not unset:
        return ""
    names = ", ".join(f"${each}" for each in unset)
    return f" (not set, and so empty here: {names}; set it in .env, or export it)"


def shown(file: FilePath) -> str:
    """Return *file* as messages name it: relative to the current directory, if it is below that."""
    try:
        return str(file.relative_to(FilePath.cwd()))
    except ValueError:
        return str(file)

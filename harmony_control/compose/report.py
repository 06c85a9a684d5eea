"""What is wrong with a project that could be read, and what of it is otherwise on a device: told at once."""

from __future__ import annotations

import attrs

from harmony_core.errors import ComposeFileError

from .project import ComposeProject

__all__ = ["Report"]

_TOLD_MOST = 20


@attrs.frozen
class Report:
    """Collects faults and notes, each with its place."""

    project: ComposeProject
    faults: dict[str, None] = attrs.field(factory=dict[str, None], init=False)
    notes: dict[str, None] = attrs.field(factory=dict[str, None], init=False)

    def refuse(self, path: tuple[str | int, ...], told: str) -> None:
        """Note what is wrong at *path*, and what to write instead."""
        why = self.project.why_empty(*path)
        self.faults.setdefault(f"{self.project.where(*path)}: {told}{why}")

    def note(self, path: tuple[str | int, ...], told: str) -> None:
        """Note a difference from Docker at *path*."""
        self.notes.setdefault(f"{self.project.where(*path)}: {told}")

    def check(self) -> None:
        """Raise one `ComposeFileError` with all faults."""
        told = [*self.faults]
        if len(told) > _TOLD_MOST:
            told[_TOLD_MOST:] = [f"and {len(told) - _TOLD_MOST} more"]
        if told:
            raise ComposeFileError("\n".join(told))

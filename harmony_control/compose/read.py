"""Compose files among Score files: which of them are one project."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from harmony_control.push.entries import AnyEntry
from harmony_core.errors import ComposeFileError
from harmony_core.plugins import Registry

__all__ = ["ComposeSettings", "entries_of_compose_files"]

_DEFAULT_NAMES = frozenset(
    {"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"}
)


def _tell_nobody(_: str) -> None: ...


@attrs.frozen(kw_only=True)
class ComposeSettings:
    """What the command line says beside the files. ``tell`` is called with each note."""

    profiles: Sequence[str] = ()
    env_files: Sequence[str] = ()
    tell: Callable[[str], None] = _tell_nobody


def entries_of_compose_files(
    files: Sequence[str], registry: Registry, settings: ComposeSettings
) -> dict[str, AnyEntry]:
    """Return the entry of each project. The *files* of one directory are one project, each merged over those
    before.

    Raise one `ComposeFileError` with all faults.
    """
    from .mapping import map_project
    from .project import read_project

    projects: dict[Path, list[Path]] = {}
    for file in map(Path, files):
        projects.setdefault(file.parent.resolve(), []).append(file)
    entries: dict[str, AnyEntry] = {}
    for paths in projects.values():
        try:
            project = read_project(
                paths,
                environment=os.environ,
                profiles=settings.profiles,
                env_files=[*map(Path, settings.env_files)],
            )
            mapped = map_project(project, registry)
        except ComposeFileError as error:
            if paths[0] == Path(files[0]):
                raise
            raise ComposeFileError(
                f"{error.message}\n{paths[0]}: lies in another directory than {files[0]}, and so is a "
                "project of its own; to merge it over that one, put it beside it"
            ) from error
        for note in (*mapped.notes, *_note_override(paths)):
            settings.tell(note)
        if twice := entries.keys() & mapped.entries.keys():
            raise ComposeFileError(
                f"{paths[0]}: another project is called {twice.pop()}, too; write another name: at its top"
            )
        entries |= mapped.entries
    return entries


def _note_override(paths: Sequence[Path]) -> Iterator[str]:
    """Yield the override files that `docker compose up` would merge over *paths*, and that nobody has
    named."""
    if len(paths) > 1 or paths[0].name not in _DEFAULT_NAMES:
        return
    for name in ("compose.override", "docker-compose.override"):
        for ending in ("yaml", "yml"):
            if os.path.exists(other := paths[0].with_name(f"{name}.{ending}")):  # noqa: PTH110 - raises not
                yield (
                    f"{other}: `docker compose up` would merge it over {paths[0].name}; here only what is "
                    "named is read, so name both where it is meant"
                )

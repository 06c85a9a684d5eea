"""Compose files, as a Score of each part: what a push of them makes of them, taken apart.

    compose files -> their ComposeScore, by the reader and mapping of a push
                  -> networks, volumes, files and containers, each a Score of its own, in the order of `after`

The parts have the fields that they have in the ComposeScore, so that both name the same resources. What goes
between services, and `after` cannot say, is noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from harmony_control.compose.read import ComposeSettings, entries_of_compose_files
from harmony_core.plugins import Registry

from .draft import Draft, Imported, Importing, Key

__all__ = ["import_compose"]

_KINDS: Mapping[str, str] = {
    "networks": "ContainerNetworkScore",
    "volumes": "VolumeScore",
    "files": "FileScore",
}
_CONTAINER = "ContainerScore"
_PUSHED_ALONG = "/etc/harmony-apps/"


def import_compose(files: Sequence[str], registry: Registry, settings: ComposeSettings) -> Imported:
    """Return the Scores of each part of the projects in *files*.

    `ComposeFileError` tells all that a push of them would refuse; `NotImportable` that two projects have a
    part in common.
    """
    importing = Importing()
    projects = entries_of_compose_files(files, registry, settings)
    for project, entry in projects.items():
        spec: dict[str, Any] = entry.score.model_dump(
            mode="json", by_alias=True, exclude_defaults=True
        )
        for section, kind in _KINDS.items():
            for each in spec.get(section, ()):
                _take(importing, kind, each, project)
        for name, service in spec["services"].items():
            _take_service(importing, project, name, service, spec)
    return importing.finish(registry)


def _take(importing: Importing, kind: str, spec: dict[str, Any], project: str) -> Draft:
    draft = importing.draft(kind)
    draft.where = project
    for field, value in spec.items():
        draft.put(field, value)
    if kind == "FileScore":
        draft.called = spec["path"].removeprefix(_PUSHED_ALONG)
    return draft


def _take_service(
    importing: Importing,
    project: str,
    name: str,
    service: Mapping[str, Any],
    spec: Mapping[str, Any],
) -> None:
    """Take the service *name* as a container that waits for what it needs of the project *spec*."""
    own = {field: value for field, value in service.items() if field != "depends_on"}
    draft = _take(importing, _CONTAINER, own, f"{project}: services.{name}")
    if own["name"].endswith(f"-{name}-1"):  # as Compose calls it, and nobody else
        draft.called = own["name"].removesuffix("-1")
    draft.after += [*_find_needed(own, spec.get("files", ()))]
    for other, dependency in service.get("depends_on", {}).items():
        draft.where = f"{project}: services.{name}.depends_on.{other}"
        if not dependency.get("required", True):
            draft.note("`after` has no required: false, so the one does not wait for the other")
            continue
        if dependency.get("condition", "service_started") == "service_started":
            draft.note("the one waits until the other is in order, and not only started")
        draft.after.append((_CONTAINER, spec["services"][other]["name"]))


def _find_needed(container: Mapping[str, Any], files: Sequence[Mapping[str, Any]]) -> Iterator[Key]:
    """Yield what *container* names: its networks, its volumes, and which of *files* it sees."""
    for each in container.get("networks", ()):
        yield _KINDS["networks"], each["network"]
    for each in container.get("volumes", ()):
        yield _KINDS["volumes"], each["volume"]
    seen = {each["source"] for each in container.get("mounts", ())} | {*container.get("uses", ())}
    for file in files:
        path = PurePosixPath(file["path"])
        if seen & {str(each) for each in (path, *path.parents)}:
            yield _KINDS["files"], file["path"]

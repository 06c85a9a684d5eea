"""Compose files of tests: written into a folder, read as an operator's side reads them."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from harmony_control.compose.project import ComposeProject, read_project

__all__ = ["list_places", "read", "service", "write"]


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write *files* below *folder*."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def read(
    folder: Path,
    text: str,
    *more: str,
    files: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    profiles: Collection[str] = (),
) -> ComposeProject:
    """Read *text* as compose.yaml in *folder*, with *more* merged over it, beside other *files*."""
    names = ["compose.yaml", *(f"more{number}.yaml" for number in range(len(more)))]
    write(folder, {**(files or {}), **dict(zip(names, (text, *more), strict=True))})
    return read_project(
        [folder / name for name in names],
        environment={"HOME": "/home/ada"} if environment is None else environment,
        profiles=profiles,
    )


def service(folder: Path, says: str, **options: Any) -> dict[str, Any]:
    """Return the only service, of which *says* is what its file has beside its image."""
    inside = textwrap.indent(textwrap.dedent(says), "    ")
    text = f"services:\n  web:\n    image: web\n{inside}\n"
    found: dict[str, Any] = read(folder, text, **options).document["services"]["web"]
    return found


def list_places(value: object) -> list[tuple[Any, Any]]:
    """Return every mapping and list below *value* with each of its keys or numbers."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        found = [(value, name) for name in cast("dict[str, object]", value)]
    elif isinstance(value, list):
        found = [(value, number) for number in range(len(cast("list[object]", value)))]
    return [each for place in found for each in (place, *list_places(place[0][place[1]]))]

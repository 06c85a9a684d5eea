"""A project of Docker Compose, read from the files that people have: what others call."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from os.path import normpath
from pathlib import Path
from typing import Any

import attrs

from harmony_core.errors import ComposeFileError

from .faults import Faults, Wrong, shown, why_empty
from .interpolation import substitute
from .keys import take_out_unmeant
from .load import Files, Loader
from .resolve import Resolver
from .tree import Path as Where
from .tree import Place, YamlMap, dotted, find_places, plain
from .values import refuse_values

__all__ = ["ComposeProject", "read_project"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@attrs.frozen
class ComposeProject:
    """What compose files say, resolved. ``document`` is in `docker compose config`'s long form."""

    name: str
    directory: Path
    """What relative paths were relative to; in *document*, they are absolute, and of mounts a `LocalPath`."""
    document: dict[str, Any]
    notes: tuple[str, ...]
    """What has no meaning here, and which variables are not set, each said once."""
    places: Mapping[Where, Place] = attrs.field(factory=dict[Where, Place], repr=False)
    unset: Mapping[Place, Collection[str]] = attrs.field(
        factory=dict[Place, Collection[str]], repr=False
    )
    """The variables that are not set, and so empty, by the line on which they stand."""

    def where(self, *path: str | int) -> str:
        """Return file, line and key of *path*, or of the nearest key above it: ``compose.yaml:12:
        services.web``."""
        place = self._place_of(path)
        return ": ".join([*([f"{place.file}:{place.line}"] if place else []), dotted(path)])

    def why_empty(self, *path: str | int) -> str:
        """Return the words to add to a fault at *path*, about variables that are not set there; empty where
        there are none."""
        place = self._place_of(path)
        return why_empty(self.unset.get(place, ())) if place else ""

    def _place_of(self, path: Where) -> Place | None:
        known = (self.places.get(path[:length]) for length in range(len(path), -1, -1))
        return next((each for each in known if each is not None), None)


def read_project(
    files: Sequence[Path],
    *,
    environment: Mapping[str, str],
    profiles: Collection[str] = (),
    env_files: Sequence[Path] = (),
    name: str | None = None,
) -> ComposeProject:
    """Return the project of *files*, each merged over those before it. Read nothing but files.

    Raise one `ComposeFileError` with all faults, each with file, line and key, and what to write instead.
    Variables come from *environment*, then from *env_files*, or from .env beside the first file. The name is
    *name*, or else COMPOSE_PROJECT_NAME, ``name`` in a file, or the name of the directory, in that order.
    Without *profiles*, COMPOSE_PROFILES selects them.
    """
    if not files:
        raise ComposeFileError("no compose file is named; name one, as in compose.yaml")
    faults = Faults()
    read = Files(faults)
    paths = [Path(normpath(Path.cwd() / each)) for each in files]
    directory, first = paths[0].parent, Place(shown(paths[0]), 1)
    variables = _read_variables(read, directory, first, environment, env_files)
    for path in paths:
        read.documents(path, Place(shown(path), 1), ())
    called = _find_name(read, paths, variables, name, faults)
    variables = {**variables, "COMPOSE_PROJECT_NAME": called}
    loader = Loader(read, faults, variables, variables.get("HOME"))
    document = loader.load(paths, directory, first, ())
    chosen = [*profiles] or [
        each for each in variables.get("COMPOSE_PROFILES", "").split(",") if each
    ]
    Resolver(document, called, variables, chosen, read, faults).resolve()
    take_out_unmeant(document, faults)
    refuse_values(document, faults)
    faults.check()
    _finish(document)
    places = {(): first, **dict(find_places(document))}
    return ComposeProject(called, directory, plain(document), faults.notes, places, faults.unset)


def _read_variables(
    read: Files,
    directory: Path,
    first: Place,
    environment: Mapping[str, str],
    env_files: Sequence[Path],
) -> dict[str, str]:
    chosen = [Path(normpath(Path.cwd() / each)) for each in env_files]
    beside = directory / ".env"
    if not chosen and read.is_there(beside, first, ()) and beside.is_file():
        chosen = [beside]
    return {**read.variables(chosen, first, environment), **environment}


def _find_name(
    read: Files,
    paths: Sequence[Path],
    variables: Mapping[str, str],
    given: str | None,
    faults: Faults,
) -> str:
    """Return the project's name, according to the Specification."""
    place = Place(shown(paths[0]), 1)
    chosen = given or variables.get("COMPOSE_PROJECT_NAME")
    if chosen:
        if _NAME.fullmatch(chosen) is None:
            told = f"the project's name {chosen!r} is none; write small letters, digits, _ and -"
            faults.add(place, (), told)
        return chosen
    if (said := _find_said_name(read, paths, place, faults)) is not None:
        text, place = said
        try:
            text = substitute(text, variables.get, faults.unset_at(place))
        except Wrong:
            return "project"  # it is told where all variables are put in
        if name := _normal(text):
            if name != text:
                told = f"{place.file}:{place.line}: the project's name {text!r} is {name!r} here"
                faults.note("name", told)
            return name
    if not (name := _normal(paths[0].parent.name)):
        told = "the project has no name, and its directory gives none; write name: at the top"
        faults.add(place, (), told)
    return name


def _find_said_name(
    read: Files, paths: Sequence[Path], place: Place, faults: Faults
) -> tuple[str, Place] | None:
    """Return the ``name`` that the files state, and its place; None where they state none. Files with
    different names are not one project."""
    said: dict[str, Place] = {}
    for document in (each for path in paths for each in read.documents(path, place, ())):
        if isinstance(value := document.get("name"), str) and value:
            said[value] = document.place_of("name")
    if len(said) > 1:
        told = (
            f"files of one directory are one project, and these say {', '.join(sorted(said))}; push them one "
            "by one, or write one name"
        )
        faults.add([*said.values()][-1], ("name",), told)
    return next(reversed(said.items()), None)


def _normal(text: str) -> str:
    return "".join(re.findall(r"[a-z0-9_-]", text.lower())).lstrip("_-")


def _finish(document: YamlMap) -> None:
    """Add what `docker compose config` adds, and remove what was needed only to resolve the project."""
    for service in document["services"].values():
        service.pop("scale", None)
        for port in service.get("ports", ()):
            port.put("mode", "ingress")
        healthcheck = service.get("healthcheck")
        if healthcheck is not None and (
            healthcheck.get("disable") or healthcheck.get("test", [""])[0] == "NONE"
        ):
            disabled = YamlMap(healthcheck.place)
            disabled.put("disable", True)
            service.put("healthcheck", disabled)

"""Compose files, with all that they include and extend, as one document in the long form.

Each document of each file is read, its variables are put in, and it is looked at and given the long form by
itself, so that whatever is wrong is told with its own line. Then what it includes comes beneath it, its
services get what they extend, and it is merged over the files before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import normpath
from pathlib import Path as FilePath
from typing import Any

import attrs

from harmony_control.score_files.document import MAX_BYTES

from .canonical import Base, canonicalise
from .documents import read_documents
from .dotenv import WrongLine, read_dotenv
from .faults import Faults, Wrong, shown
from .interpolation import substitute
from .keys import LOGINS
from .merge import merge
from .schema import validate
from .tree import Path, Place, YamlList, YamlMap, copy, entries

__all__ = ["Files", "Loader"]

_CHAIN_MOST = 20
_FILES_MOST = 100
_SECTIONS = ("services", "networks", "volumes", "configs", "secrets", "models", LOGINS)


class Files:
    """What the files say, each read once."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._documents: dict[FilePath, list[YamlMap]] = {}

    def documents(self, file: FilePath, place: Place, path: Path) -> list[YamlMap]:
        """Return the documents of *file*, which is named at *place*. The caller must not change them."""
        if file not in self._documents:
            if len(self._documents) >= _FILES_MOST:
                told = f"names more than {_FILES_MOST} files with those before it; use fewer"
                self._faults.add(place, path, told)
                return []
            data = self._read(file, place, path)
            name = shown(file)
            self._documents[file] = [] if data is None else read_documents(name, data, self._faults)
        return self._documents[file]

    def text(self, file: FilePath, place: Place, path: Path) -> str | None:
        """Return the text of *file*, which is named at *place*; None where it cannot be read."""
        data = self._read(file, place, path)
        try:
            return None if data is None else data.decode()
        except UnicodeDecodeError as error:
            line = (data or b"")[: error.start].count(b"\n") + 1
            told = f"is not UTF-8 text (byte {error.start}); save it as UTF-8"
            self._faults.add(Place(shown(file), line), (), told)
            return None

    def variables(
        self,
        files: Sequence[FilePath],
        place: Place,
        environment: Mapping[str, str],
        path: Path = (),
    ) -> dict[str, str]:
        """Return the variables of *files* (.env). Those of *environment* take precedence."""
        found: dict[str, str] = {}
        for file in files:
            if (text := self.text(file, place, path)) is None:
                continue
            note = self._faults.unset_at(Place(shown(file), 1))
            try:
                found |= read_dotenv(text, environment.get, note, found)
            except WrongLine as wrong:
                self._faults.add(Place(shown(file), wrong.line), (), wrong.told)
        return {name: value for name, value in found.items() if not name[:1].isdigit()}

    def is_there(self, file: FilePath, place: Place, path: Path) -> bool:
        """Return whether *file*, or a directory, exists. Where it may not be looked at, add a fault and
        return False."""
        try:
            return file.exists()
        except OSError as error:
            told = (
                f"{shown(file)} cannot be read: {error.strerror}; correct its name, or its rights"
            )
            self._faults.add(place, path, told)
            return False

    def _read(self, file: FilePath, place: Place, path: Path) -> bytes | None:
        try:
            with file.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        except FileNotFoundError:
            self._faults.add(place, path, f"{shown(file)} is not there; correct its name")
        except IsADirectoryError:
            self._faults.add(place, path, f"{shown(file)} is a directory; name a file in it")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            self._faults.add(place, path, f"{shown(file)} cannot be read: {why}; correct its name")
        else:
            if len(data) <= MAX_BYTES:
                return data
            self._faults.add(
                place, path, f"{shown(file)} is larger than {MAX_BYTES} bytes; split it"
            )
        return None


@attrs.frozen
class Loader:
    """Makes one document of files. ``environment`` is what variables are taken from."""

    files: Files
    faults: Faults
    environment: Mapping[str, str]
    home: str | None
    including: tuple[FilePath, ...] = ()
    """The files that have led here."""

    def load(
        self, files: Sequence[FilePath], directory: FilePath, place: Place, path: Path
    ) -> YamlMap:
        """Return *files*, named at *place*, merged into one. Their paths are relative to *directory*."""
        found = YamlMap(place)
        for file in files:
            for raw in self.files.documents(file, place, path):
                document = self._prepare(copy(raw), directory)
                document = self._include(document, file, directory)
                self._extend(document, file, directory)
                found = merge(found, document)
        return found

    def _prepare(self, document: YamlMap, directory: FilePath) -> YamlMap:
        """Replace the variables, check the document against the Specification, and give it the long form."""
        _Variables(self.environment, self.faults).put_into(document)
        validate(document, self.faults)
        canonicalise(document, Base(directory, self.home), self.faults)
        return document

    # --- include

    def _include(self, document: YamlMap, file: FilePath, directory: FilePath) -> YamlMap:
        """Return *document* merged over the files that it includes."""
        for number, each, place in entries(document.pop("include", None)):
            if each is None:
                continue
            path = ("include", number)
            found = self._included(each, file, directory, place, path)
            beneath = YamlMap(place)
            for section in _SECTIONS:
                if section in found:
                    beneath.put(section, found[section], found.place_of(section))
            document = merge(beneath, document)
        return document

    def _included(
        self, each: Any, file: FilePath, directory: FilePath, place: Place, path: Path
    ) -> YamlMap:
        says = each if isinstance(each, YamlMap) else {"path": each}
        files = [self._beside(directory, name) for name in _as_list(says.get("path"))]
        if not files:
            self.faults.add(place, path, "includes nothing; write the path of a compose file")
            return YamlMap(place)
        including = (*self.including, file)
        if files[0] in including:
            self.faults.add(place, path, f"{shown(files[0])} includes itself; take it out there")
            return YamlMap(place)
        if any(_is_remote(name) for name in _as_list(says.get("path"))):
            self.faults.add(
                place, path, "is not fetched; copy the file beside this one, and name that"
            )
            return YamlMap(place)
        inner = self._beside(directory, str(says.get("project_directory") or files[0].parent))
        env_files = [
            self._beside(directory, name)
            for name in _as_list(says.get("env_file"))
            if name != "/dev/null"
        ]
        beside = inner / ".env"
        is_said = bool(env_files or says.get("env_file"))
        if not is_said and self.files.is_there(beside, place, path) and beside.is_file():
            env_files = [beside]
        more = self.files.variables(env_files, place, self.environment, path)
        loader = attrs.evolve(self, environment={**more, **self.environment}, including=including)
        return loader.load(files, inner, place, path)

    @staticmethod
    def _beside(directory: FilePath, name: str) -> FilePath:
        return FilePath(normpath(directory / name))

    # --- extends

    def _extend(self, document: YamlMap, file: FilePath, directory: FilePath) -> None:
        services = document.get("services")
        if not isinstance(services, YamlMap):
            return
        done: dict[str, YamlMap] = {}
        for name in list(services):
            place = services.place_of(name)
            services.put(name, self._extended(name, services, file, directory, (), done), place)

    def _extended(
        self,
        name: str,
        services: Mapping[str, Any],
        file: FilePath,
        directory: FilePath,
        chain: tuple[tuple[FilePath, str], ...],
        done: dict[str, YamlMap] | None = None,
    ) -> YamlMap:
        """Return the service *name* merged over what it extends. *chain* has the services that led here."""
        if done is not None and name in done:
            return done[name]
        service: YamlMap = copy(services[name])
        place = service.place_of("extends")
        path = ("services", name, "extends")
        extends = service.pop("extends", None)
        found = service
        if isinstance(extends, YamlMap):
            if (file, name) in chain or len(chain) >= _CHAIN_MOST:
                self.faults.add(place, path, "extends itself in the end; take it out")
            elif lower := self._lower(
                extends, services, file, directory, (*chain, (file, name)), done
            ):
                found = merge(lower, service, ("services", name))
        if done is not None:
            done[name] = found
        return found

    def _lower(
        self,
        extends: YamlMap,
        services: Mapping[str, Any],
        file: FilePath,
        directory: FilePath,
        chain: tuple[tuple[FilePath, str], ...],
        done: dict[str, YamlMap] | None,
    ) -> YamlMap | None:
        """Return the service that another extends; None, and add a fault, where there is no such service."""
        reference = str(extends.get("service"))
        other = extends.get("file")
        place, path = extends.place, ("services", chain[-1][1], "extends")
        if other is not None:
            if _is_remote(str(other)):
                self.faults.add(place, path, "is not fetched; copy the file beside this one")
                return None
            file = self._beside(directory, str(other))
            directory, done = file.parent, None
            services = self._service_of(file, reference, place, path)
            if self.faults.is_below(path) and reference not in services:
                return None
        if reference not in services or not isinstance(services[reference], YamlMap):
            told = f"there is no service {reference!r} in {shown(file)}; name one that is there"
            self.faults.add(place, path, told)
            return None
        return self._extended(reference, services, file, directory, chain, done)

    def _service_of(self, file: FilePath, name: str, place: Place, path: Path) -> YamlMap:
        """Return the services of *file* that *name* needs: itself, and those that it extends there."""
        found = YamlMap(place)
        for raw in self.files.documents(file, place, path):
            services = raw.get("services")
            if not isinstance(services, YamlMap):
                continue
            part = YamlMap(raw.place)
            chosen = YamlMap(services.place)
            part.put("services", chosen, raw.place_of("services"))
            wanted: str | None = name
            while wanted is not None and wanted in services and wanted not in chosen:
                chosen.put(wanted, copy(services[wanted]), services.place_of(wanted))
                wanted = _extends_here(services[wanted])
            self._prepare(part, file.parent)
            found = merge(found, part.get("services") or YamlMap(place), ("services",))
        return found


def _extends_here(service: Any) -> str | None:
    """Return the service of the same file that *service* extends; None where that cannot be known without
    variables."""
    extends = service.get("extends") if isinstance(service, YamlMap) else None
    if isinstance(extends, YamlMap):
        extends = extends.get("service") if "file" not in extends else None
    return extends if isinstance(extends, str) else None


def _is_remote(name: str) -> bool:
    return "://" in name or name.startswith("git@")


def _as_list(value: Any) -> list[str]:
    if isinstance(value, YamlList):
        return [str(each) for each in value if each is not None]
    return [] if value is None else [str(value)]


@attrs.define
class _Variables:
    """Puts variables into the values of a document. Keys stay as they are."""

    _environment: Mapping[str, str]
    _faults: Faults
    _bytes_left: int = MAX_BYTES

    def put_into(self, document: YamlMap) -> None:
        self._into(document, ())

    def _into(self, value: YamlMap | YamlList, path: Path) -> None:
        for part, each, place in entries(value):
            inside = (*path, part)
            if isinstance(each, str) and "$" in each:
                value[part] = self._text(each, place, inside)
            elif isinstance(each, YamlMap | YamlList):
                self._into(each, inside)

    def _text(self, text: str, place: Place, path: Path) -> object:
        try:
            found = substitute(text, self._environment.get, self._faults.unset_at(place))
        except Wrong as wrong:
            self._faults.add(place, path, wrong.told)
            return ""
        self._bytes_left -= len(found)
        if self._bytes_left < 0:
            told = (
                f"the file is larger than {MAX_BYTES} bytes with its variables put in; shorten them"
            )
            self._faults.add(place, (), told)
            return ""
        # The only key that the Specification takes as true or false alone.
        if path[-1] == "required" and found.lower() in {"true", "false"}:
            return found.lower() == "true"
        return found

"""Files of podman's Quadlet, as Scores of containers, volumes and networks.

All files that belong together are read at one time, since they name each other: ``Network=web.network``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from harmony_core.close_names import did_you_mean
from harmony_core.errors import NotImportable
from harmony_core.plugins import Registry

from . import readers
from .command_line import read_flags
from .draft import Draft, Imported, Importing, Key
from .quadlet_keys import KEYS, Done, Meaningless, Refused
from .unit_file import Line, read_unit_file
from .words import split_for_systemd, unescape_specifiers

__all__ = ["import_quadlets"]

_KINDS: Mapping[str, tuple[str, str]] = {
    ".container": ("Container", "ContainerScore"),
    ".volume": ("Volume", "VolumeScore"),
    ".network": ("Network", "ContainerNetworkScore"),
}
"""By the end of a file's name: its section, and which Score it becomes."""
_NAME_KEYS = {"Container": "ContainerName", "Volume": "VolumeName", "Network": "NetworkName"}
_SERVICES = {".container": "", ".volume": "-volume", ".network": "-network"}
_OTHER_FILES: Mapping[str, str] = {
    ".pod": "there are no pods; put its containers on one network, where they find each other by name",
    ".kube": "it is for `podman kube play`; write its containers as .container files",
    ".image": "a container pulls its image itself; leave it out, and write the image into Image=",
    ".build": "nothing is built on a device; build and push the image, and write it into Image=",
    ".artifact": "a container has no artifacts; build what is in it into the image",
    ".conf": "it changes another file; write its lines into that file",
}
_SYSTEM = "the agent begins once the device has started, and keeps it running"
_OF_THE_SYSTEM = (".target", ".socket", ".slice")
_WAITING = frozenset({"After", "Requires", "Wants", "BindsTo", "Requisite", "PartOf", "Upholds"})


@attrs.frozen
class _File:
    """One file, with what it becomes."""

    path: Path
    section: str
    lines: Sequence[Line]
    draft: Draft

    @property
    def key(self) -> Key:
        """The draft's kind and name, known before the file is read in full."""
        return self.draft.kind, self._last(_NAME_KEYS[self.section]) or f"systemd-{self.path.stem}"

    @property
    def service(self) -> str:
        """Return the unit of systemd that Quadlet makes of it."""
        name = self._last("ServiceName") or f"{self.path.stem}{_SERVICES[self.path.suffix]}"
        return f"{name}.service"

    def _last(self, key: str) -> str:
        found = [
            each.value for each in self.lines if (each.section, each.key) == (self.section, key)
        ]
        return found[-1].strip('"') if found else ""


def import_quadlets(paths: Sequence[Path], registry: Registry) -> Imported:
    """Return the Scores of all files. `NotImportable` tells all that is wrong, with file, line and key."""
    importing = Importing()
    files = [found for path in paths if (found := _open(importing, path)) is not None]
    by_name = {each.path.name: each for each in files}
    for each in files:
        _read(each, by_name)
    return importing.finish(registry)


def _open(importing: Importing, path: Path) -> _File | None:
    if path.suffix in _OTHER_FILES:
        importing.refuse(str(path), _OTHER_FILES[path.suffix])
    elif path.suffix not in _KINDS:
        importing.refuse(str(path), "is no file of Quadlet; give .container, .volume and .network")
    elif "@" in path.stem:
        importing.refuse(str(path), "is a template; write a file for each of its instances")
    elif path.with_name(f"{path.name}.d").is_dir():
        importing.refuse(
            str(path), f"is changed by what is in {path.name}.d; write those lines into it"
        )
    else:
        try:
            lines = read_unit_file(path)
        except NotImportable as error:
            importing.refuse("", error.message)
            return None
        section, kind = _KINDS[path.suffix]
        return _File(path, section, lines, importing.draft(kind, path.absolute().parent))
    return None


def _read(file: _File, by_name: Mapping[str, _File]) -> None:
    draft = file.draft
    draft.where = str(file.path)
    draft.put("name", file.key[1])
    for line in _lines_that_count(file):
        verdict = KEYS.get(line.section, {}).get(line.key)
        if line.section == "Unit" and line.key in _WAITING:
            _wait(file, line, by_name)
        elif line.section in _NAME_KEYS and line.section != file.section:
            draft.importing.refuse(line.where, f"[{line.section}] is of another file; leave it out")
        elif isinstance(verdict, Done):
            _take(file, line, verdict, by_name)
        elif isinstance(verdict, Meaningless):
            draft.importing.note(line.where, verdict.why)
        elif isinstance(verdict, Refused):
            draft.importing.refuse(line.where, verdict.remedy)
        else:
            _pass_over(draft, line)
    if file.section != "Container":
        return
    if "image" not in draft.spec:
        if not any(each.key in {"Image", "Rootfs"} for each in file.lines):
            draft.importing.refuse(str(file.path), "has no Image=; add it to [Container]")
        draft.put("image", "docker.io/library/none")  # so that the rest is looked at, too
    readers.finish_container(draft)


def _lines_that_count(file: _File) -> Iterator[Line]:
    """Yield the lines that are in force: of a key that is said once, the last, and else those after an empty
    one. Arguments of podman come at the end, as they do for podman."""
    arguments: list[Line] = []
    for at, line in enumerate(file.lines):
        same = [
            each
            for each in file.lines[at + 1 :]
            if (each.section, each.key) == (line.section, line.key)
        ]
        verdict = KEYS.get(line.section, {}).get(line.key)
        how = verdict.how if isinstance(verdict, Done) else "each"
        if (same and how in {"last", "switch", "command"}) or any(not each.value for each in same):
            continue
        if not line.value and line.key != "Entrypoint":
            continue
        if how == "arguments":
            arguments.append(line)
        else:
            yield line
    yield from arguments


def _take(file: _File, line: Line, done: Done, by_name: Mapping[str, _File]) -> None:
    draft = file.draft
    if line.section == "Service" and file.section != "Container":
        draft.importing.refuse(line.where, "only a container is started; leave it out")
        return
    try:
        values = list(_values(line, done))
        if line.section == "Container":
            values = [_resolve(line.key, _unescape_dollars(each), by_name) for each in values]
    except ValueError as error:
        draft.importing.refuse(line.where, str(error))
        return
    if done.how == "arguments":
        values = read_flags(draft, values, f"{line.where}: ")
    for value in values:
        draft.read(line.where, done.reader, value)


def _values(line: Line, done: Done) -> Iterator[str]:
    value = unescape_specifiers(line.value)
    match done.how:
        case "words" | "command" | "arguments":
            yield from split_for_systemd(value)
        case "each":
            yield value
        case "last":
            quoted = len(value) > 1 and value[0] == value[-1] == '"'
            yield value[1:-1] if quoted else value
        case "switch":
            yield str(value.lower() in {"1", "yes", "true", "on"}).lower()


_VARIABLE = re.compile(r"\$\$|\$\{[^}]*\}|\A\$\w+\Z")


def _unescape_dollars(word: str) -> str:
    """Return *word* with $$ as $; a variable, which systemd would replace, is refused."""

    def plain(found: re.Match[str]) -> str:
        if found[0] != "$$":
            raise ValueError(
                f"{found[0]} is a variable, which systemd replaces; write what it comes to, or $$ for a $"
            )
        return "$"

    return _VARIABLE.sub(plain, word)


_SOURCE = re.compile(r"(?:(?<=,)|\A)(src|source)=([^,]*\.(?:volume|image|artifact))(?=,|\Z)")


def _resolve(key: str, value: str, by_name: Mapping[str, _File]) -> str:
    """Return *value* with the names of other files as what these become."""
    match key:
        case "Network" | "Volume":
            first, colon, rest = value.partition(":")
            if first.endswith((".network", ".volume", ".container")):
                return f"{_name_of(first, by_name)}{colon}{rest}"
        case "Mount":
            return _SOURCE.sub(lambda found: f"{found[1]}={_name_of(found[2], by_name)}", value)
        case "Image" if value.endswith((".image", ".build")):
            raise ValueError(f"{value}: {_OTHER_FILES[Path(value).suffix]}")
        case _:
            pass
    return value


def _name_of(file: str, by_name: Mapping[str, _File]) -> str:
    if file.endswith(".container"):
        raise ValueError(
            "a container that is made anew would leave the other without a network; put both on a network of "
            "their own, or use host"
        )
    if (suffix := Path(file).suffix) in _OTHER_FILES:
        raise ValueError(f"{file}: {_OTHER_FILES[suffix]}")
    if file not in by_name:
        raise ValueError(f"{file} is not given; give that file, too")
    return by_name[file].key[1]


def _wait(file: _File, line: Line, by_name: Mapping[str, _File]) -> None:
    """Wait for those units that are imported as well. What starts with the system is there before."""
    draft = file.draft
    keys = {each.service: each.key for each in by_name.values()}
    keys |= {name: each.key for name, each in by_name.items()}
    for unit in line.value.split():
        if unit in keys:
            if keys[unit] != file.key and keys[unit] not in draft.after:
                draft.after.append(keys[unit])
        elif unit.endswith(_OF_THE_SYSTEM):
            draft.importing.note(line.where, _SYSTEM)
        else:
            draft.importing.refuse(
                line.where, f"{unit} is not imported; give its file, too, or leave it out"
            )


def _pass_over(draft: Draft, line: Line) -> None:
    """Say of a key that is in no list whose it is."""
    if line.section.startswith("X-") or line.key.startswith("X-"):
        draft.importing.note(line.where, "what begins with X- is a remark")
    elif line.section in {"Unit", "Service", "Install"}:
        draft.importing.refuse(
            line.where,
            "a container is no unit of systemd here; leave it out, or keep the file as it is by a FileScore",
        )
    elif line.section not in KEYS:
        hint = did_you_mean(line.section, KEYS) or "; correct its name"
        draft.importing.refuse(line.where, f"[{line.section}] is no section of Quadlet{hint}")
    else:
        hint = did_you_mean(line.key, KEYS[line.section]) or "; correct its name"
        draft.importing.refuse(line.where, f"[{line.section}] has no such key{hint}")

"""What services mount, as a device has it.

    /srv/data                        the device's own path, also where there is one of that name here
    ./app.conf, ./hooks              pushed along, below /etc/harmony-apps/PROJECT/files, read-only
    ./data, which has no files here  a volume PROJECT_PATH, which the device keeps
    a device, the time zone          what a container has fields for

Relative is what was written so, and it lies below the project's directory. What is pushed stands in the
manifest, or is an asset that its manifest opens: no secret.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from harmony_control.assets.local import read_asset
from harmony_control.score_files.beside import INLINE_MOST_BYTES as INLINE_FILE_MOST_BYTES
from harmony_core.errors import ScoreFileError
from harmony_core.resources import ASSET_MAX_BYTES

from .faults import Wrong, shown
from .local import LocalPath, LocalTree, look_at
from .project import ComposeProject
from .report import Report

__all__ = [
    "INLINE_FILE_MOST_BYTES",
    "INLINE_MOST_BYTES",
    "PUSHED_MOST_BYTES",
    "Mounted",
    "Sources",
]

INLINE_MOST_BYTES = 96 * 1024
"""All files of a project that stand in its manifest, which has 256 KiB. What is beyond that is an asset."""
PUSHED_MOST_BYTES = ASSET_MAX_BYTES
"""Of all that is pushed along for one mount."""
_DIRECTORY = "/etc/harmony-apps"
_SOCKETS = {"/var/run/docker.sock", "/run/docker.sock"}
_LINKS = {
    "/var/run": "/run",
    "/var/lock": "/run/lock",
    "/lib": "/usr/lib",
    "/bin": "/usr/bin",
    "/sbin": "/usr/sbin",
}
"""Links that each Debian has: a mount follows none."""
_DEVICE_SOCKETS = {"/dev/log": "/run/systemd/journal/dev-log", "/dev/initctl": ""}
"""What is below /dev and no device, with the path that it leads to."""
_OF_MEMORY = ("/dev/shm", "/dev/mqueue", "/dev/hugepages")  # noqa: S108 - paths of the device
"""Directories below /dev, of files."""
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY")
_TIME_ZONE = {"/etc/localtime", "/etc/timezone"}
_OF_FILES = frozenset(
    {".cfg", ".conf", ".crt", ".db", ".env", ".html", ".ini", ".js", ".json", ".key", ".pem"}
    | {".properties", ".py", ".sh", ".sql", ".sqlite", ".toml", ".txt", ".xml", ".yaml", ".yml"}
)
"""How names end of what is meant to be a file."""
_ANOTHER_WAY = (
    "have it on the device by `harmony secret` in a FileScore, or by hand (0600, root's), and write its path "
    "there"
)

Where = tuple[str | int, ...]
Spec = dict[str, Any]


@attrs.define
class Mounted:
    """What a service sees, in the fields of its container; and where in the project each was said."""

    mounts: list[Spec] = attrs.Factory(list[Spec])
    volumes: list[Spec] = attrs.Factory(list[Spec])
    tmpfs: list[Spec] = attrs.Factory(list[Spec])
    devices: list[Spec] = attrs.Factory(list[Spec])
    secrets: list[Spec] = attrs.Factory(list[Spec])
    uses: list[str] = attrs.Factory(list[str])
    timezone: str | None = None
    places: dict[tuple[str, int], Where] = attrs.Factory(dict[tuple[str, int], Where])

    def add(self, field: str, spec: Spec, where: Where) -> None:
        """Add *spec* to *field*, and note that it comes from *where*."""
        items: list[Spec] = getattr(self, field)
        self.places[field, len(items)] = where
        items.append(spec)


@attrs.define
class Sources:
    """Of one project: what its services mount, and what is to be made for that."""

    project: ComposeProject
    report: Report
    files: dict[str, Spec] = attrs.Factory(dict[str, Spec])
    """Files that are pushed along, by their path on the device."""
    volumes: dict[str, Spec] = attrs.Factory(dict[str, Spec])
    """Volumes to be made, by name."""
    _size_bytes: int = 0
    _given: dict[str, Spec] = attrs.Factory(dict[str, Spec])
    """What was said of each file that is pushed along, by its path on the device."""
    _external: set[str] = attrs.Factory(set[str])
    """Volumes that somebody else makes."""
    _directories: dict[str, str] = attrs.Factory(dict[str, str])
    """The relative path that each volume stands for, by the volume's name."""

    def declare_volumes(self, document: Mapping[str, Any]) -> None:
        """Have the device create those named volumes of *document* that are not external."""
        for key in document.get("volumes", {}):
            name, said = self.volume_name(key), self.declared("volumes", key)
            if said.get("external"):
                self._external.add(name)
            else:
                self.volumes[name] = {"name": name, "labels": said.get("labels", {})}

    def declared(self, section: str, key: str) -> Spec:
        """Return the project's declaration of a network, volume, config or secret."""
        said: Spec | None = self.project.document.get(section, {}).get(key)
        return said or {}

    def volume_name(self, key: str) -> str:
        """Return the name of the volume *key* on the device."""
        said = self.declared("volumes", key)
        return str(said.get("name") or f"{self.project.name}_{key}")

    def mount(self, mounted: Mounted, said: Mapping[str, Any], where: Where) -> None:
        """Add one of a service's ``volumes`` to *mounted*. Report a fault in it once."""
        try:
            match said.get("type"):
                case "bind":
                    self._bind(mounted, said, where)
                case "volume":
                    self._volume(mounted, said, where)
                case "tmpfs":
                    self._tmpfs(mounted, said, where)
                case other:
                    self.report.refuse(
                        where, f"{other!r} is not mounted; write bind, volume or tmpfs"
                    )
        except Wrong as wrong:
            self.report.refuse(where, wrong.told)

    def add_device(
        self, mounted: Mounted, source: str, target: str, access: str, where: Where
    ) -> None:
        """Add the device *source* to *mounted*. Raise `Wrong` where it is not a device."""
        if (leads_to := _DEVICE_SOCKETS.get(source)) is not None:
            instead = f"mount {leads_to} as {target}, or " if leads_to else ""
            raise Wrong(
                f"{source} is a socket or a pipe, and no device; {instead}remove it: what a container writes "
                "to its output is in `harmony logs`"
            )
        mounted.add("devices", {"source": source, "target": target, "access": access}, where)

    def keep_file(
        self,
        name: str,
        *,
        mode: int,
        owner: str = "root",
        group: str = "root",
        file: Path | None = None,
        **content: Any,
    ) -> str:
        """Keep a file with *content* on the device, and return its path there. Raise `Wrong` where that is
        not possible.

        *content* is that of the local *file*, if there is one. It becomes an asset where the manifest has no
        room for it.
        """
        path = f"{_DIRECTORY}/{self.project.name}/{name}"
        kept = {"path": path, "mode": f"{mode:04o}", "owner": owner, "group": group}
        spec = {**kept, **content}
        known = self._given.get(path)
        if known == spec:
            return path
        if known is not None:
            raise Wrong(
                f"{name} would be two files on the device that differ, both {path}; give one another name"
            )
        if _PRIVATE_KEY.search(content.get("content") or ""):
            raise Wrong(
                f"{name} has a private key, which would stand in the manifest for all who may read that; "
                + _ANOTHER_WAY
            )
        size_bytes = len(content.get("content") or content.get("content_base64") or "")
        self._given[path] = spec
        if self._size_bytes + size_bytes > INLINE_MOST_BYTES and file is not None:
            self.files[path] = {**kept, **_to_asset(file)}
            return path
        if self._size_bytes + size_bytes > INLINE_MOST_BYTES:
            raise Wrong(
                f"with {name}, what is pushed along is more than {INLINE_MOST_BYTES // 1024} KiB; put it "
                "on the device (rsync, scp), and write its path there, as in /srv/"
                + self.project.name
            )
        self._size_bytes += size_bytes
        self.files[path] = spec
        return path

    def push_file(self, file: Path, name: str, where: Where, **kept: Any) -> str:
        """Keep the content of *file* on the device as *name*, and return its path there."""
        tree = look_at(file, PUSHED_MOST_BYTES)
        if tree is None:
            raise Wrong(f"{shown(file)} is not there; write it, or correct its name")
        if tree.is_directory:
            raise Wrong(f"{shown(file)} is a directory; name a file in it")
        self._note_private(tree, where)
        return self._push(file, name, tree.files[file], **kept)

    def _push(self, file: Path, name: str, permissions: int, **kept: Any) -> str:
        is_program = permissions & 0o100
        if permissions & 0o077:
            kept.setdefault("mode", 0o755 if is_program else 0o644)
        else:
            kept.setdefault("mode", 0o700 if is_program else 0o600)
        try:
            if file.stat().st_size > INLINE_FILE_MOST_BYTES:
                return self.keep_file(name, **_to_asset(file), **kept)
            content = file.read_bytes()
        except OSError as error:
            raise Wrong(
                f"{shown(file)} cannot be read: {error.strerror}; have it readable"
            ) from error
        try:
            return self.keep_file(name, content=content.decode(), file=file, **kept)
        except UnicodeDecodeError:
            text = base64.b64encode(content).decode()
            return self.keep_file(name, content_base64=text, file=file, **kept)

    def _note_private(self, tree: LocalTree, where: Where) -> None:
        if private := tree.private:
            self.report.note(
                where,
                f"{_in_words(private)} may be a secret, by its name or since others may not read it here, "
                f"and stands in the manifest for all who may read that; if it is one, {_ANOTHER_WAY}",
            )

    @staticmethod
    def _tmpfs(mounted: Mounted, said: Mapping[str, Any], where: Where) -> None:
        spec: Spec = {"target": said["target"]}
        options: Spec = said.get("tmpfs") or {}
        if "size" in options:
            spec["size_bytes"] = options["size"]
        if "mode" in options:
            spec["mode"] = f"{options['mode']:04o}"
        mounted.add("tmpfs", spec, where)

    def _volume(self, mounted: Mounted, said: Mapping[str, Any], where: Where) -> None:
        if not said.get("source"):
            raise Wrong(
                "has no name, so its data would be nobody's; write NAME:TARGET, and NAME in volumes"
            )
        spec = {"volume": self.volume_name(said["source"]), "target": said["target"]}
        mounted.add("volumes", {**spec, "read_only": said.get("read_only", False)}, where)

    def _bind(self, mounted: Mounted, said: Mapping[str, Any], where: Where) -> None:
        source, target = said["source"], str(said["target"])
        if isinstance(source, LocalPath):
            self._local(mounted, said, where)
        elif source in _SOCKETS:
            raise Wrong(
                f"{source} is Docker's, which is not on the device, and whoever has it is root there; leave "
                "it out. For what cannot do without, mount /run/podman/podman.sock, which the device's "
                "policy.toml must allow"
            )
        elif source in _TIME_ZONE and target == source:
            mounted.timezone = "local"
            self.report.note(
                where,
                "the container is given the device's time zone (timezone: local) in place of this",
            )
        elif source.startswith("/dev/") and not _is_below(source, *_OF_MEMORY):
            access = "r" if said.get("read_only") else "rw"
            self.add_device(mounted, source, target, access, where)
        else:
            self._note_here(source, where)
            for link, leads_to in _LINKS.items():
                if _is_below(source, link):
                    source = leads_to + source.removeprefix(link)
            options: Spec = said.get("bind") or {}
            if options.get("create_host_path"):
                self.report.note(
                    (*where, "bind", "create_host_path"),
                    f"{source} is not made: it has to be there on the device, or be made by a DirectoryScore",
                )
            spec: Spec = {
                "source": source,
                "target": target,
                "read_only": said.get("read_only", False),
                "propagation": options.get("propagation", "rprivate"),
            }
            mounted.add("mounts", spec, where)

    def _note_here(self, source: str, where: Where) -> None:
        """Note that *source* is a path of the device, where it may come from a variable such as ``$PWD``."""
        here = {str(self.project.directory), str(Path.cwd()), str(Path("~").expanduser())} - {"/"}
        if _is_below(source, *here):
            self.report.note(
                where,
                f"{source} is a path of the device, and nothing of what is there on this machine is pushed "
                "along; for that, write it relative to the compose file, as in ./data",
            )

    def _local(self, mounted: Mounted, said: Mapping[str, Any], where: Where) -> None:
        source = Path(said["source"])
        if not source.is_relative_to(self.project.directory):
            raise Wrong(
                f"{shown(source)} lies outside the project; write a path of the device, or move it beside "
                "the compose file"
            )
        name = str(source.relative_to(self.project.directory))
        if name == ".":
            raise Wrong(
                "the project's own directory is not pushed along; name what the service needs of it, or "
                "build it into the image"
            )
        tree = look_at(source, PUSHED_MOST_BYTES)
        if tree is None and source.suffix in _OF_FILES:
            raise Wrong(f"there is no file {name} here; write it, and push again")
        options: Spec = said.get("bind") or {}
        if tree is None and options.get("create_host_path") is False:
            raise Wrong(
                f"there is no {name} here, and create_host_path: false has none made; write it, or remove "
                "create_host_path"
            )
        if tree is None or not tree.has_content:
            self._keep_directory(mounted, said, where, name)
            return
        for file, permissions in tree.files.items():
            inside = str(file.relative_to(self.project.directory))
            path = self._push(file, f"files/{inside}", permissions)
            if tree.is_directory:
                mounted.uses.append(path)
        self._note_private(tree, where)
        if tree.empty:
            self.report.note(
                where, f"{_in_words(tree.empty)} is empty, and is not there on the device"
            )
        if not said.get("read_only", False):
            self.report.note(
                where,
                f"{name} is pushed along, and the container may only read it; for what it writes, name a "
                "volume, or a path that is not here",
            )
        path = f"{_DIRECTORY}/{self.project.name}/files/{name}"
        mounted.add("mounts", {"source": path, "target": said["target"], "read_only": True}, where)

    def _keep_directory(
        self, mounted: Mounted, said: Mapping[str, Any], where: Where, name: str
    ) -> None:
        """Add a volume in place of a relative path without files."""
        slug = re.sub(r"[^a-zA-Z0-9_.-]", "-", name).lstrip(".-_") or "data"
        volume = f"{self.project.name}_{slug}"
        other = self._directories.get(volume, "")
        if other != name and volume in {*self.volumes, *self._external}:
            called = f"./{other}" if other else f"the volume {volume}"
            raise Wrong(
                f"./{name} and {called} would be one volume, {volume}, on the device; rename one"
            )
        for other in self._directories.values():
            if other != name and (_is_below(other, name) or _is_below(name, other)):
                raise Wrong(
                    f"./{name} and ./{other} lie in each other, and each is a volume on the device; write a "
                    "path of the device for both, as in /srv/" + self.project.name
                )
        if volume not in self.volumes:
            self.report.note(
                where,
                f"./{name} has no files here: on the device it is the volume {volume}, which stays",
            )
        self._directories[volume] = name
        self.volumes[volume] = {"name": volume}
        spec = {"volume": volume, "target": said["target"]}
        mounted.add("volumes", {**spec, "read_only": said.get("read_only", False)}, where)


def _in_words(files: list[Path]) -> str:
    """Return the name of the first of *files*, and how many others there are."""
    more = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
    return f"{shown(files[0])}{more}"


def _to_asset(file: Path) -> Spec:
    try:
        return {"asset": read_asset(file).model_dump(mode="json")}
    except ScoreFileError as error:
        raise Wrong(error.message) from error


def _is_below(path: str, *directories: str) -> bool:
    """Return whether *path* is one of *directories*, or is below one."""
    return any(path == each or path.startswith(f"{each}/") for each in directories)

"""Files in memory: what a Score sees of a file system, and what happens behind its back.

Passes the same `FileSystemHostContract` as the real one. Beside the reconciler's verbs stand those of a
`Bystander`: somebody else on the same device, who reads, edits and breaks things.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from pathlib import PurePosixPath

import attrs

from harmony_core.change import Change
from harmony_core.errors import (
    AssetMissing,
    DidNotStick,
    DownloadFailed,
    NotOurs,
    PriorTooLarge,
    SecretMissing,
    UnsafePath,
)
from harmony_core.paths import check_path
from harmony_core.reconciler import ORIGINAL_MAX_BYTES, JsonRecord, MemoryRecords
from harmony_core.resources import (
    Asset,
    Download,
    File,
    FileState,
    NotAFile,
    PresentAt,
    resource_id,
)
from harmony_core.secret_values import SecretValues
from harmony_core.steps import Left
from harmony_pi_topology.common.check import did_it_stick
from harmony_pi_topology.directories.made import id_of_made_directory
from harmony_pi_topology.files.plan import (
    CHANGED_SINCE,
    LEFT,
    REMOVED,
    RESTORED,
    DesiredFile,
    diff_of,
    in_place_of,
    may_be_shown,
    resolve_desired,
    steps_due,
)
from harmony_pi_topology.posix.safe_write import CopiedContent

from .fake_reconciler import FakeReconciler

__all__ = ["FakeFiles", "FileContents", "MadeDirectoryRecords"]


@attrs.define(kw_only=True)
class _Node:
    content: bytes
    mode: int
    owner: str
    group: str
    inode: int
    written: int


@attrs.define
class _Memory:
    """What is remembered of a file that a Score made or took over."""

    existed: bool
    secret: bool = False
    released: bool = False
    backup: _Node | None = None
    """What was there before, once it was changed."""
    wrote: bytes = b""


class _Disk:
    """Everything that is lost with the disk."""

    def __init__(self) -> None:
        self.files: dict[str, _Node] = {}
        self.others: dict[str, str] = {"/": "directory"}
        """Directories and symbolic links."""
        self.memory: dict[str, _Memory] = {}
        self.made_directories: set[str] = set()


class FakeFiles(FakeReconciler):
    """A `FileSystemHost`'s reconciler over a dictionary.

    ``faults[path]`` is an error with which everything about that path is answered. With ``only_mode`` all
    has that mode, whatever is set, as on FAT.
    """

    def __init__(self) -> None:
        super().__init__()
        self.faults: dict[str, Exception] = {}
        self.only_mode: int | None = None
        self._disk = _Disk()
        self.secret_values = SecretValues()
        self._secrets: dict[str, bytes] = {}
        self.assets: dict[str, bytes] = {}
        """The content of each asset and download that is here, by its hash."""
        self._clock = 0
        self._listeners: list[Callable[[str], None]] = [self._watch.tell_at]

    @property
    def resource_class(self) -> type[File]:
        return File

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        return [self._converge_one(each, apply=apply) for each in resources]

    async def observe(self, key: str) -> FileState | None:
        self.refuse(key)
        memory = self._disk.memory.get(key)
        return self._state(key, hidden=memory is not None and memory.secret)

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        return [self._remove_one(each, apply=apply) for each in keys]

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call *listener* with the path of whatever changes, for ever: for fakes that use these files."""
        self._listeners.append(listener)

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file and make its directories, as a bystander would."""
        for parent in _parents(path):
            self._disk.others.setdefault(parent, "directory")
        self._disk.others.pop(path, None)
        node = self._disk.files.get(path)
        self._clock += 1
        if node is None:
            node = _Node(
                content=content, mode=mode, owner="root", group="root", inode=self._clock, written=0
            )
            self._disk.files[path] = node
        node.content, node.written = content, self._clock
        node.mode = self.keep_mode(mode)
        self._tell(path)

    def read(self, path: str) -> bytes | None:
        """Return what a bystander reads there; None when there is no regular file."""
        node = self._disk.files.get(path)
        return node.content if node is not None else None

    @property
    def contents(self) -> FileContents:
        """Every file by its path, as a bystander reads and writes it. Shared with other fakes."""
        return FileContents(self)

    def keep_mode(self, mode: int) -> int:
        """Return what *mode* becomes once it is set."""
        return mode if self.only_mode is None else self.only_mode

    def mode(self, path: str) -> int:
        """Return the permission bits of a file that is there."""
        return self._disk.files[path].mode

    def make_directory(self, path: str) -> None:
        """Make a directory and those above it, as a bystander would."""
        for each in (*_parents(path), path):
            self._disk.others.setdefault(each, "directory")
        self._tell(path)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link, as a bystander would."""
        self.make_directory(str(PurePosixPath(path).parent))
        self._disk.others[path] = f"symbolic link to {target}"
        self._tell(path)

    def readlink(self, path: str) -> str | None:
        """Return what a symbolic link leads to; None where there is none."""
        kind, is_link, target = self._disk.others.get(path, "").partition(" to ")
        return target if is_link and kind == "symbolic link" else None

    def paths(self) -> list[str]:
        """Return the paths of all regular files."""
        return list(self._disk.files)

    def exists(self, path: str) -> bool:
        """Return whether anything is there."""
        return path in self._disk.files or path in self._disk.others

    def kind_at(self, path: str) -> str | None:
        """Return "file", "directory" or "symbolic link"; None when nothing is there."""
        if path in self._disk.files:
            return "file"
        other = self._disk.others.get(path)
        return other.partition(" to ")[0] if other is not None else None

    def above(self, path: str) -> list[str]:
        """Return every directory above *path*, the root first."""
        return _parents(path)

    @property
    def made_directories(self) -> set[str]:
        """Those that were made on the way to something."""
        return self._disk.made_directories

    def remove_directory(self, path: str) -> bool:
        """Remove a directory. Return whether it is gone: one that is not empty stays."""
        if self.is_full(path):
            return False
        self._disk.others.pop(path, None)
        self._tell(path)
        return True

    def delete(self, path: str) -> None:
        """Delete a file or a link, as a bystander would."""
        self._disk.files.pop(path, None)
        self._disk.others.pop(path, None)
        self._tell(path)

    def identity(self, path: str) -> tuple[int, int]:
        """Return the inode, and when it was written: both stay when nothing is done."""
        node = self._disk.files[path]
        return node.inode, node.written

    def put_secret(self, name: str, content: bytes) -> None:
        """Put a secret in its place, as the device's owner would."""
        self._secrets[name] = content

    def forget_everything(self) -> None:
        """Replace the disk by an empty one."""
        self._disk = _Disk()
        self._watch.tell_all()

    def _tell(self, path: str) -> None:
        for listener in self._listeners:
            listener(path)

    def _converge_one(self, file: File, *, apply: bool) -> Change | Exception:
        try:
            self.refuse(file.path)
            known = self._disk.memory.get(file.path)
            was_secret = known is not None and known.secret
            content = self._content(file)
            desired = resolve_desired(
                file,
                content,
                replaces_secret=was_secret,
                downloaded=isinstance(content, CopiedContent),
            )
            found = self._regular(file)
            gone = self._gives_way(file)
        except Exception as error:  # noqa: BLE001 - one file's error is that file's answer
            return error
        change = self._change(file, desired, found)
        if apply and change.changed and len(desired.content) != desired.state.size_bytes:
            return _make_not_here(file)
        if gone is not None:
            kind = NotAFile(kind=gone)
            change = attrs.evolve(change, steps=in_place_of(gone, desired), before=kind)
        if not apply:
            return change
        if gone is not None:
            self._disk.others.pop(file.path)
        memory = self._remember(file, desired, existed=found is not None)
        if change.changed:
            too_large = self._keep_backup(file, memory) if memory.existed else None
            if too_large is not None:
                return too_large
            try:
                self._refuse_what_would_not_stick(file, desired)
            except DidNotStick as error:
                return error
            memory.wrote = desired.content
            self._put(file, desired)
            change = attrs.evolve(change, after=self._state(file.path, hidden=desired.is_secret))
        memory.secret = desired.is_secret
        return change

    def _refuse_what_would_not_stick(self, file: File, desired: DesiredFile) -> None:
        kept = attrs.evolve(desired.state, mode=f"{self.keep_mode(desired.mode):04o}")
        did_it_stick(
            file.path, desired.state, kept, remedy=f"ask for mode {kept.mode}", resource=file.id
        )

    def _keep_backup(self, file: File, memory: _Memory) -> Exception | None:
        node = self._disk.files.get(file.path)
        if memory.backup is not None or node is None:
            return None
        if len(node.content) > ORIGINAL_MAX_BYTES:
            return PriorTooLarge(
                f"{file.path} is too large to be kept; move it away, or set discard_previous",
                resource=file.id,
            )
        memory.backup = attrs.evolve(node)
        return None

    def _change(self, file: File, desired: DesiredFile, found: PresentAt | None) -> Change:
        diff = None
        if found is not None and found.sha256 != desired.sha256 and may_be_shown(found, desired):
            diff = diff_of(file.path, self._disk.files[file.path].content, desired.content)
        before = desired.as_told(found) if found is not None else None
        return Change(
            resource=file.id,
            steps=steps_due(found, desired),
            before=before,
            after=desired.state,
            diff=diff,
        )

    def _put(self, file: File, desired: DesiredFile) -> None:
        for parent in _parents(file.path):
            if parent not in self._disk.others:
                self._disk.others[parent] = "directory"
                self._disk.made_directories.add(parent)
        self._clock += 1
        node = self._disk.files.get(file.path)
        if node is None or node.content != desired.content:
            node = _Node(
                content=desired.content,
                mode=desired.mode,
                owner=file.owner,
                group=file.group,
                inode=self._clock,
                written=self._clock,
            )
            self._disk.files[file.path] = node
        node.mode, node.owner, node.group = desired.mode, file.owner, file.group
        self._tell(file.path)

    def _remember(self, file: File, desired: DesiredFile, *, existed: bool) -> _Memory:
        memory = self._disk.memory.get(file.path)
        if memory is None or memory.released:
            memory = self._disk.memory[file.path] = _Memory(existed)
        memory.secret = desired.hides_found
        if file.discard_previous and memory.backup is None:
            memory.existed = False
        return memory

    def _remove_one(self, path: str, *, apply: bool) -> Change | Exception:
        rid = resource_id(File.resource_type, path)
        try:
            self.refuse(path)
            memory = self._disk.memory.get(path)
            found = self._state(path, hidden=memory is not None and memory.secret)
        except Exception as error:  # noqa: BLE001 - one file's error is that file's answer
            return error
        if found is None:
            return self._forget_gone(path, Change(resource=rid), apply=apply)
        if memory is None:
            return NotOurs(f"{path} is not Harmony's; remove it by hand", resource=rid)
        if isinstance(found, NotAFile) or (memory.existed and memory.backup is None):
            return self._leave(memory, LEFT, found, rid, apply=apply)
        if memory.backup is not None:
            return self._give_back(path, memory, memory.backup, found, apply=apply)
        return self._forget_gone(
            path, Change(resource=rid, steps=(REMOVED,), before=found), apply=apply
        )

    def _leave(
        self, memory: _Memory, why: Left, found: FileState, rid: str, *, apply: bool
    ) -> Change:
        steps = () if memory.released else (why,)
        memory.released = memory.released or apply
        return Change(resource=rid, steps=steps, before=found, after=found)

    def _give_back(
        self, path: str, memory: _Memory, backup: _Node, found: FileState, *, apply: bool
    ) -> Change:
        rid, node = resource_id(File.resource_type, path), self._disk.files[path]
        if memory.released or node.content not in {memory.wrote, backup.content}:
            return self._leave(memory, CHANGED_SINCE, found, rid, apply=apply)
        if apply:
            self._clock += 1
            self._disk.files[path] = attrs.evolve(backup, inode=self._clock, written=self._clock)
            del self._disk.memory[path]
            self._tell(path)
        after = _present(backup, hidden=memory.secret)
        return Change(resource=rid, steps=(RESTORED,), before=found, after=after)

    def _forget_gone(self, path: str, change: Change, *, apply: bool) -> Change:
        if apply:
            if self._disk.files.pop(path, None) is not None:
                self._tell(path)
            self._disk.memory.pop(path, None)
            for parent in reversed(_parents(path)):
                if parent not in self._disk.made_directories or self.is_full(parent):
                    break
                self._disk.made_directories.discard(parent)
                self._disk.others.pop(parent, None)
        return change

    def is_full(self, directory: str) -> bool:
        """Return whether anything is in the directory."""
        return any(directory in _parents(path) for path in (*self._disk.files, *self._disk.others))

    def below(self, directory: str) -> list[str]:
        """Return every path below it."""
        every = (*self._disk.files, *self._disk.others)
        return sorted(path for path in every if directory in _parents(path))

    def refuse(self, path: str) -> None:
        """Raise what is wrong with the way to *path*, or its fault."""
        if path in self.faults:
            raise self.faults[path]
        check_path(path)
        for parent in _parents(path):
            if (
                parent in self._disk.files
                or self._disk.others.get(parent, "directory") != "directory"
            ):
                raise UnsafePath(
                    f"{path}: {parent} on the way there is not a directory; name the real path",
                    resource=resource_id(File.resource_type, path),
                )

    def _content(self, file: File) -> bytes | CopiedContent:
        if isinstance(file.content, Asset | Download):
            fetched = file.content
            return self.assets.get(fetched.sha256) or CopiedContent(
                source=None,
                size_bytes=fetched.size_bytes,
                sha256=fetched.sha256,
                summary=fetched.summary,
            )
        if isinstance(file.content, bytes):
            return self.secret_values.reveal(file.content)
        try:
            return self._secrets[file.content.secret]
        except KeyError:
            raise SecretMissing(
                f"this device holds no secret {file.content.secret!r}; "
                "put it into its secrets directory",
                resource=file.id,
            ) from None

    def _gives_way(self, file: File) -> str | None:
        """Return what has taken the place of a file of ours and may be removed: a link, or an empty
        directory."""
        found, memory = self._state(file.path), self._disk.memory.get(file.path)
        if not isinstance(found, NotAFile) or memory is None or memory.released:
            return None
        ours = not memory.existed or memory.backup is not None
        return found.kind if ours and not self.is_full(file.path) else None

    def _regular(self, file: File) -> PresentAt | None:
        found = self._state(file.path)
        if isinstance(found, NotAFile) and self._gives_way(file) is not None:
            return None
        if isinstance(found, NotAFile):
            raise UnsafePath(
                f"{file.path} is a {found.kind}, not a file; move it away", resource=file.id
            )
        return found

    def _state(self, path: str, *, hidden: bool = False) -> FileState | None:
        if path in self._disk.others:
            return NotAFile(kind=self._disk.others[path].partition(" to ")[0])
        node = self._disk.files.get(path)
        return None if node is None else _present(node, hidden=hidden)


def _make_not_here(file: File) -> Exception:
    if isinstance(file.content, Download):
        return DownloadFailed(
            f"{file.content.name}: a device that is made up downloads nothing; put the content into "
            "assets, by its hash",
            resource=file.id,
        )
    return AssetMissing(f"what {file.path} is to hold is not here; fetch it", resource=file.id)


class FileContents(MutableMapping[str, bytes]):
    """A view: what is written here is in the files, and the other way round."""

    def __init__(self, files: FakeFiles) -> None:
        self._files = files

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call *listener* with the path of whatever changes; see `FakeFiles.listen`."""
        self._files.listen(listener)

    def __getitem__(self, path: str) -> bytes:
        content = self._files.read(path)
        if content is None:
            raise KeyError(path)
        return content

    def __setitem__(self, path: str, content: bytes) -> None:
        self._files.write(path, content)

    def __delitem__(self, path: str) -> None:
        self[path]
        self._files.delete(path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files.paths())

    def __len__(self) -> int:
        return len(self._files.paths())


class MadeDirectoryRecords(MemoryRecords):
    """Records of something beside *files*, which know, too, which directories were made on the way."""

    def __init__(self, files: FakeFiles) -> None:
        super().__init__()
        self._files = files

    def get(self, resource_id: str) -> JsonRecord | None:
        path = resource_id.removeprefix(id_of_made_directory(""))
        if path == resource_id:
            return super().get(resource_id)
        return {} if path in self._files.made_directories else None

    async def put(self, resource_id: str, record: JsonRecord) -> None:
        path = resource_id.removeprefix(id_of_made_directory(""))
        if path == resource_id:
            await super().put(resource_id, record)
        else:
            self._files.made_directories.add(path)

    async def forget(self, resource_id: str) -> None:
        path = resource_id.removeprefix(id_of_made_directory(""))
        if path == resource_id:
            await super().forget(resource_id)
        else:
            self._files.made_directories.discard(path)


def _present(node: _Node, *, hidden: bool) -> PresentAt:
    return PresentAt(
        sha256="" if hidden else hashlib.sha256(node.content).hexdigest(),
        mode=f"{node.mode:04o}",
        size_bytes=len(node.content),
        owner=node.owner,
        group=node.group,
    )


def _parents(path: str) -> list[str]:
    """Return every directory above *path*, the root first."""
    return [str(each) for each in reversed(PurePosixPath(path).parents)]

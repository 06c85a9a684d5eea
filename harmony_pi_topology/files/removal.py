"""Remove files, in a thread: those that we made, and nothing else.

    not there -> done        not recorded -> NotOurs
    there before us, and never changed, or not a file any more -> left
    there before us, and what we wrote is what is there -> what was there before is put back
                     changed by somebody else since -> left
    else -> removed

and then the directories that were made on the way, where they are empty now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath

import attrs

from harmony_core.change import Change
from harmony_core.errors import CapabilityError, NotOurs, WriteFailed
from harmony_core.reconciler import JsonRecord
from harmony_core.resources import File, FileState, NotAFile, PresentAt, resource_id
from harmony_core.steps import Left
from harmony_pi_topology.posix.extras import is_like
from harmony_pi_topology.posix.hashing import HASHED_MAX_BYTES
from harmony_pi_topology.posix.owners import Owners
from harmony_pi_topology.posix.root import Draft, Found, Root
from harmony_pi_topology.posix.safe_write import draft_of_backup

from .plan import CHANGED_SINCE, LEFT, REMOVED, RESTORED

__all__ = ["Removal", "Removed", "kind_in_words", "remove_all", "state_of"]

_KINDS = {"symlink": "symbolic link", "other": "device, pipe or socket"}


@attrs.frozen(kw_only=True)
class Removal:
    """What is known of a file that is to go."""

    path: str
    record: JsonRecord | None
    made_directories: Sequence[str]
    """Those above it that were made for our files."""
    backup: bytes | None = attrs.field(default=None, repr=False)
    """What was there before us, if it was kept."""

    @property
    def directories(self) -> Sequence[str]:
        """Where there may be something of ours: that in which it is, and those that were made."""
        return [str(PurePosixPath(self.path).parent), *self.made_directories]

    @property
    def may_have_backup(self) -> bool:
        """Unless it is known that nothing was there."""
        return self.record is None or bool(self.record["existed"])


@attrs.frozen(kw_only=True)
class Removed:
    """What became of it."""

    result: Change | Exception
    is_gone: bool = False
    is_released: bool = False
    gone_directories: Sequence[str] = ()


def remove_all(
    root: Root, owners: Owners, removals: Sequence[Removal], *, apply: bool
) -> list[Removed]:
    """Remove each file; an error is that file's own answer. Idempotent."""
    return [_remove_one(root, owners, each, apply=apply) for each in removals]


def kind_in_words(found: Found) -> str:
    """Return what it is, in words for people."""
    return _KINDS.get(found.kind, found.kind)


def state_of(
    root: Root, owners: Owners, path: str, found: Found, *, hidden: bool
) -> PresentAt | NotAFile:
    """Return *found* as it is reported; *hidden* leaves out the hash."""
    if found.kind != "file":
        return NotAFile(kind=kind_in_words(found))
    return PresentAt(
        sha256="" if hidden else _sha256_at(root, path, found),
        mode=f"{found.mode:04o}",
        size_bytes=found.size_bytes,
        owner=owners.user(found.uid),
        group=owners.group(found.gid),
    )


def _sha256_at(root: Root, path: str, found: Found) -> str:
    """Return the hash of a file; empty where it is too large to be hashed, and so nothing that we ever
    wrote."""
    return "" if found.size_bytes > HASHED_MAX_BYTES else root.sha256(path)


def _remove_one(root: Root, owners: Owners, removal: Removal, *, apply: bool) -> Removed:
    rid = resource_id(File.resource_type, removal.path)
    try:
        return _remove(root, owners, removal, rid, apply=apply)
    except CapabilityError as error:
        error.resource = rid
        return Removed(result=error)
    except OSError as error:
        message = f"{removal.path} cannot be looked at: {error.strerror}; it is tried again later"
        return Removed(result=WriteFailed(message, resource=rid))


def _remove(root: Root, owners: Owners, removal: Removal, rid: str, *, apply: bool) -> Removed:
    found, record = root.look(removal.path), removal.record
    if found is None:
        return _forget_gone(root, removal, Change(resource=rid), apply=apply)
    if record is None:
        raise NotOurs(f"{removal.path} was not made by Harmony; delete it by hand if it is to go")
    state = state_of(root, owners, removal.path, found, hidden="secret" in record)
    if found.kind != "file":
        return _leave(record, LEFT, state, rid, apply=apply)
    if record["existed"]:
        return _give_back(root, owners, removal, found, state, rid, apply=apply)
    if apply:
        root.remove(removal.path)
    return _forget_gone(
        root, removal, Change(resource=rid, steps=(REMOVED,), before=state), apply=apply
    )


def _give_back(
    root: Root,
    owners: Owners,
    removal: Removal,
    found: Found,
    state: FileState,
    rid: str,
    *,
    apply: bool,
) -> Removed:
    record, backup = removal.record or {}, removal.backup
    if "prior" not in record or backup is None:
        return _leave(record, LEFT, state, rid, apply=apply)
    draft = draft_of_backup(removal.path, backup, record["prior"])
    sha256 = _sha256_at(root, removal.path, found)
    is_ours = sha256 in record["wrote"]
    # Already so, when we were killed, or put right by hand.
    if _is_as(found, sha256, draft, backup) and not (is_ours and _lacks_extras(root, draft)):
        return _forget_gone(
            root, removal, Change(resource=rid, before=state, after=state), apply=apply
        )
    if not is_ours:
        return _leave(record, CHANGED_SINCE, state, rid, apply=apply)
    after = PresentAt(
        sha256="" if "secret" in record else _sha256(backup),
        mode=f"{draft.mode:04o}",
        size_bytes=len(backup),
        owner=owners.user(draft.uid),
        group=owners.group(draft.gid),
    )
    if apply:
        (there,) = root.write_many([draft])
        after = attrs.evolve(
            after,
            mode=f"{there.mode:04o}",
            size_bytes=there.size_bytes,
            owner=owners.user(there.uid),
            group=owners.group(there.gid),
        )
    change = Change(resource=rid, steps=(RESTORED,), before=state, after=after)
    return _forget_gone(root, removal, change, apply=apply)


def _is_as(found: Found, sha256: str, draft: Draft, content: bytes) -> bool:
    attributes = (found.mode, found.uid, found.gid) == (draft.mode, draft.uid, draft.gid)
    return attributes and sha256 == _sha256(content)


def _lacks_extras(root: Root, draft: Draft) -> bool:
    return draft.extras is not None and not is_like(draft.extras, root.extras(draft.path))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _leave(record: JsonRecord, why: Left, state: FileState, rid: str, *, apply: bool) -> Removed:
    steps = () if "left" in record else (why,)
    change = Change(resource=rid, steps=steps, before=state, after=state)
    return Removed(result=change, is_released=apply)


def _forget_gone(root: Root, removal: Removal, change: Change, *, apply: bool) -> Removed:
    if not apply:
        return Removed(result=change)
    gone = root.remove_empty(removal.made_directories)
    return Removed(result=change, is_gone=True, gone_directories=gone)

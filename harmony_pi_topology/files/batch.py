"""One batch of many files, in a thread: observe all, plan each, apply what is due, check what stands there.

    stat -> seen before? -> the hash that is remembered
              else       -> hash -> as desired?  yes: nothing
                                    only mode or owner differ: set them, the inode stays
                                    else: parents, then all files written together, durably
                                    -> what stands there then is the answer, and has to be as desired
         a link, or an empty directory, where a file of ours was -> it goes, and the file is written

A hash is remembered with the seven facts of its file, and believed while they stay; but not when the file
had changed in the very tick of the kernel's clock in which it was looked at, since a second change in
that tick could not be told from the first.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import attrs

from harmony_core.assets import Assets
from harmony_core.change import Change
from harmony_core.errors import CapabilityError, UnsafePath, WriteFailed
from harmony_core.reconciler import ORIGINAL_MAX_BYTES
from harmony_core.resources import Asset, Download, File, NotAFile, PresentAt, SecretRef
from harmony_core.secret_values import SecretValues
from harmony_core.steps import Removed, Step
from harmony_pi_topology.common.check import name_as_desired
from harmony_pi_topology.common.secrets import read_secret
from harmony_pi_topology.posix.errors import make_write_failed
from harmony_pi_topology.posix.owners import Owners
from harmony_pi_topology.posix.root import CopiedContent, Draft, Found, Root

from .plan import (
    COMPARED_MAX_BYTES,
    DesiredFile,
    diff_of,
    in_place_of,
    may_be_shown,
    resolve_desired,
    steps_due,
)
from .records import refuse_unrestorable
from .removal import kind_in_words

__all__ = ["BatchResult", "FileBatches", "FileRequest"]

Result: TypeAlias = Change | Exception
ResultT = TypeVar("ResultT")
_Done: TypeAlias = dict[str, Found | CapabilityError]
"""By path what stands there after the deed, or why it could not be done."""

_NOT_YET = WriteFailed("not looked at")
_REALTIME_COARSE = 5
"""Linux's CLOCK_REALTIME_COARSE: the clock that stamps files."""
_HELD_MAX_BYTES = 64 * 1024
"""Of a file whose wished content is longer, it is hashed at each look."""
_WRITTEN_TOGETHER = 128
"""Each takes two descriptors until its batch is durable, and a process has 1,024 to begin with."""


class FileRequest(NamedTuple):
    """A file, and whether to bring it about or only to say what would be done."""

    file: File
    apply: bool


@attrs.frozen
class BatchResult:
    """One result a wish, in order, and the directories that were made on the way."""

    results: list[Result]
    made_directories: list[str]


@attrs.frozen
class _Seen:
    found: Found
    sha256: str
    looked_at_ns: int

    def still_holds(self, found: Found) -> bool:
        return self.found.ctime_ns < self.looked_at_ns and self.found == found


@attrs.frozen
class _Settled:
    """A wish that was found fulfilled, with the answer to give as long as nothing changes."""

    file: File
    found: Found
    change: Change

    def is_for(self, file: File) -> bool:
        return self.file is file or self.file == file


@attrs.frozen(kw_only=True)
class _Plan:
    """What would become of one file."""

    file: File
    change: Change
    """Its ``after`` is what is wished; what is told of a deed is looked at then."""
    draft: Draft
    is_new: bool = False
    keeps_content: bool = False
    gives_way: bool = False
    """Something stands there that is not a file, and may go."""


class FileBatches:
    """Remembers what it saw from one pass to the next. Not for two threads at a time.

    *is_ours* says whether at a file's place is nothing but what we wrote, or what was put there since, and
    *was_secret* whether that was a secret; *makes_way* whether what else stands there is gone by the deed.
    """

    def __init__(
        self,
        root: Root,
        *,
        is_ours: Callable[[File], bool],
        was_secret: Callable[[File], bool],
        makes_way: Callable[[str], bool],
        secrets_directory: str,
        secret_values: SecretValues,
        assets: Assets,
        owner_checked: bool,
    ) -> None:
        self._root = root
        self._is_ours = is_ours
        self._was_secret = was_secret
        self._makes_way = makes_way
        self._secrets_directory = secrets_directory
        self._secret_values = secret_values
        self._assets = assets
        self._owner_checked = owner_checked
        self._seen: dict[str, _Seen] = {}
        self._settled: dict[str, _Settled] = {}
        self._fetched: set[str] = set()

    def owners(self) -> Owners:
        """Return the users and groups to whom files can belong here, as they are known now."""
        here = self._root.path == "/" or not self._owner_checked
        return Owners(self._root, of_this_machine=here)

    def sha256_desired(self, file: File) -> str:
        """Return the hexadecimal SHA-256 of what *file* is to contain. Raise `SecretMissing`, as `converge`
        does."""
        content = self._content(file)
        if isinstance(content, bytes):
            return hashlib.sha256(content).hexdigest()
        return content.sha256

    def note_fetching(self, sha256: str) -> None:
        """Remember that the content with this hash is fetched for what is written next."""
        self._fetched.add(sha256)

    def forget(self, path: str) -> None:
        """Forget a file that is gone."""
        self._seen.pop(path, None)
        self._settled.pop(path, None)

    def converge(self, all_desired: Sequence[FileRequest]) -> BatchResult:
        """Make every file as desired. For one that cannot be, answer its error."""
        results: list[Result] = [_NOT_YET] * len(all_desired)
        made: list[str] = []
        owners = self.owners()
        # Also where nothing is to be written now: who was killed at it may have wished for something else.
        self._root.sweep({_above(desired.file.path) for desired in all_desired if desired.apply})
        for turn in _turns(all_desired):
            due: dict[int, _Plan] = {}
            planned = self._plan_one([all_desired[index] for index in turn], owners)
            for index, plan in zip(turn, planned, strict=True):
                if not isinstance(plan, _Plan):
                    results[index] = plan
                    continue
                results[index] = plan.change
                if plan.change.changed and all_desired[index].apply:
                    due[index] = plan
            done = self._bring_about(list(due.values()), made)
            for index, plan in due.items():
                results[index] = self._to_result(plan, done[plan.draft.path], owners)
        return BatchResult(results, made)

    def _plan_one(self, requests: Sequence[FileRequest], owners: Owners) -> list[_Plan | Result]:
        now_ns = time.clock_gettime_ns(_REALTIME_COARSE)  # before looking, see above
        planned: list[_Plan | Result] = []
        looks = self._root.look_many([file.path for file, _ in requests])
        for (file, apply), found in zip(requests, looks, strict=True):
            settled = self._settled.get(file.path)
            if settled is not None and settled.found == found and settled.is_for(file):
                planned.append(settled.change)
            else:
                is_gone = not apply and _stands_in_the_way(found) and self._makes_way(file.path)
                looked = None if is_gone else found
                planned.append(self._plan_present(file, looked, owners, now_ns))
        return planned

    def _plan_present(
        self, file: File, looked: Found | CapabilityError | None, owners: Owners, now_ns: int
    ) -> _Plan | Result:
        try:
            if (
                isinstance(looked, Found)
                and looked.kind != "file"
                and self._gives_way(file, looked)
            ):
                return self._plan_missing(file, looked, owners)
            found = _regular(file.path, looked)
            if found is None:
                return self._plan_missing(file, None, owners)
            plan = self._plan(file, found, owners, now_ns)
        except CapabilityError as error:
            error.resource = file.id
            return error
        except OSError as error:
            return WriteFailed(
                f"{file.path} cannot be read: {error.strerror}; look at the kernel's log",
                resource=file.id,
            )
        if found.ctime_ns < now_ns:
            self._settle(file, found, plan.change)
        return plan

    def _settle(self, file: File, found: Found, change: Change) -> None:
        """Remember that the file is as desired, where only the seven facts can change that."""
        is_plain = isinstance(file.content, bytes) and len(file.content) <= _HELD_MAX_BYTES
        # A name may be given to another number at any time.
        is_owner_fixed = not self._owner_checked or (
            _is_fixed(file.owner) and _is_fixed(file.group)
        )
        if not change.changed and is_plain and is_owner_fixed:
            self._settled[file.path] = _Settled(file, found, change)
        else:
            self._settled.pop(file.path, None)

    def _plan_missing(self, file: File, instead: Found | None, owners: Owners) -> _Plan:
        """Return the plan where there is no file, and perhaps something that has replaced ours."""
        content = self._content(file)
        desired = self._resolve_desired(file, content, owners, None)
        kind = kind_in_words(instead) if instead is not None else None
        change = Change(
            resource=file.id,
            steps=steps_due(None, desired) if kind is None else in_place_of(kind, desired),
            before=None if kind is None else NotAFile(kind=kind),
            after=desired.state,
        )
        return _Plan(
            file=file,
            change=change,
            draft=self._draft(file, content, owners),
            is_new=kind is None,
            gives_way=kind is not None,
        )

    def _plan(self, file: File, found: Found, owners: Owners, now_ns: int) -> _Plan:
        content = self._content(file)
        draft = self._draft(file, content, owners)
        before = self._present(file, draft, found, owners, now_ns)
        desired = self._resolve_desired(file, content, owners, before)
        keeps_content = before.sha256 == desired.sha256
        steps = steps_due(before, desired)
        change = Change(
            resource=file.id,
            steps=(*steps, *self._losses(file, found, keeps_content)) if steps else (),
            before=desired.as_told(before),
            after=desired.state,
            diff=None if keeps_content else self._diff(file.path, before, desired),
        )
        return _Plan(
            file=file,
            change=change,
            draft=draft,
            keeps_content=keeps_content,
        )

    def _losses(self, file: File, found: Found, keeps_content: bool) -> tuple[Step, ...]:
        """Return what else is lost with *found* when *file* is written.

        What is somebody else's is kept with the backup. What could not be restored is refused here already,
        so that a diff says so too.
        """
        extras = self._root.extras(file.path)
        if not self._is_ours(file) and not file.discard_previous:
            refuse_unrestorable(file.path, found, extras)
        if keeps_content and extras.names == 1:
            return ()  # the inode stays, and all that it has
        return tuple(Removed(f"the {what} of what was there") for what in extras.words)

    def _gives_way(self, file: File, found: Found) -> bool:
        return self._is_ours(file) and self._root.may_give_way(file.path, found)

    def _content(self, file: File) -> bytes | CopiedContent:
        if isinstance(file.content, SecretRef):
            return read_secret(self._secrets_directory, file.content.secret)
        if isinstance(file.content, Asset | Download):
            source, size_bytes = self._assets.find(file.content), file.content.size_bytes
            if size_bytes is None and source is not None:
                size_bytes = source.stat().st_size
            return CopiedContent(
                source=source,
                size_bytes=size_bytes,
                sha256=file.content.sha256,
                summary=file.content.summary,
            )
        return self._secret_values.reveal(file.content) if file.has_secret else file.content

    def _draft(self, file: File, content: bytes | CopiedContent, owners: Owners) -> Draft:
        uid = owners.uid(file.owner) if self._owner_checked else -1
        gid = owners.gid(file.group) if self._owner_checked else -1
        return Draft(path=file.path, content=content, mode=file.mode, uid=uid, gid=gid)

    def _resolve_desired(
        self,
        file: File,
        content: bytes | CopiedContent,
        owners: Owners,
        before: PresentAt | None,
    ) -> DesiredFile:
        """Return what is desired; where owners are not checked, with the owner that it will have."""
        desired = resolve_desired(
            file,
            content,
            replaces_secret=self._was_secret(file),
            downloaded=isinstance(content, CopiedContent)
            and (content.source is None or content.sha256 in self._fetched),
        )
        if self._owner_checked:
            return desired
        if before is not None and before.sha256 == desired.sha256:
            user, group = before.owner, before.group
        else:
            user, group = owners.user(os.geteuid()), owners.group(os.getegid())
        return attrs.evolve(desired, state=attrs.evolve(desired.state, owner=user, group=group))

    def _present(
        self, file: File, draft: Draft, found: Found, owners: Owners, now_ns: int
    ) -> PresentAt:
        """Return *found* in words, with its true hash; without one where it is large and of another size."""
        # One of another size is another, whatever is in it, and may be as large as somebody likes.
        is_hashed = found.size_bytes <= max(len(draft.content), ORIGINAL_MAX_BYTES)
        sha256 = self._sha256(file.path, found, now_ns) if is_hashed else ""
        return _in_words(file, draft, found, owners, sha256)

    def _to_result(self, plan: _Plan, done: Found | CapabilityError, owners: Owners) -> Result:
        """Return the result of *plan*: the Change, with what was found afterwards, or the error."""
        if isinstance(done, CapabilityError):
            error = name_as_desired(done, owner=plan.file.owner, group=plan.file.group)
            error.resource = plan.file.id
            return error
        if isinstance(plan.draft.content, CopiedContent):
            self._fetched.discard(plan.draft.content.sha256)
        wanted = plan.change.after
        sha256 = wanted.sha256 if isinstance(wanted, PresentAt) else ""
        after = _in_words(plan.file, plan.draft, done, owners, sha256)
        return attrs.evolve(plan.change, after=after)

    def _sha256(self, path: str, found: Found, now_ns: int) -> str:
        seen = self._seen.get(path)
        if seen is not None and seen.still_holds(found):
            return seen.sha256
        sha256 = self._root.sha256(path)
        self._seen[path] = _Seen(found, sha256, now_ns)
        return sha256

    def _diff(self, path: str, before: PresentAt, desired: DesiredFile) -> str | None:
        if not may_be_shown(before, desired):
            return None
        return diff_of(path, self._root.read(path, max_bytes=COMPARED_MAX_BYTES), desired.content)

    def _bring_about(self, plans: Sequence[_Plan], made: list[str]) -> _Done:
        """Carry out *plans*, each of another path. Return by path what is there then, or the error."""
        done: _Done = {}
        written: list[_Plan] = []
        for plan in plans:
            # Of a file with several names, mode and owner would change under all: so a new one is made.
            if not plan.keeps_content or self._attempt(
                done, plan, lambda plan: self._root.count_names(plan.draft.path) > 1
            ):
                written.append(plan)
            elif plan.draft.path not in done:
                self._attempt(done, plan, lambda plan: done.update(self._change_attributes(plan)))
        for plan in written:
            if plan.is_new:
                self._attempt(
                    done, plan, lambda plan: made.extend(self._root.make_parents(plan.draft.path))
                )
            if plan.gives_way:
                self._attempt(done, plan, lambda plan: self._root.make_way(plan.draft.path))
        rest = [plan for plan in written if plan.draft.path not in done]
        for start in range(0, len(rest), _WRITTEN_TOGETHER):
            self._write(rest[start : start + _WRITTEN_TOGETHER], done)
        for plan in plans:
            self._seen.pop(plan.draft.path, None)
        return done

    @staticmethod
    def _attempt(done: _Done, plan: _Plan, step: Callable[[_Plan], ResultT]) -> ResultT | None:
        """Return the answer of *step*; None where it fails, which is then the result of *plan*."""
        try:
            return step(plan)
        except CapabilityError as error:
            done[plan.draft.path] = error
        except OSError as error:  # such as that it has gone meanwhile
            done[plan.draft.path] = make_write_failed(plan.draft.path, error, doing="changed")
        return None

    def _change_attributes(self, plan: _Plan) -> _Done:
        draft = plan.draft
        found = self._root.change(draft.path, mode=draft.mode, uid=draft.uid, gid=draft.gid)
        return {draft.path: found}

    def _write(self, plans: Sequence[_Plan], done: _Done) -> None:
        """Write all *plans* together; if that fails, one by one, so that each has its own error."""
        try:
            found = self._root.write_many([plan.draft for plan in plans])
        except CapabilityError as error:
            if len(plans) == 1:
                done[plans[0].draft.path] = error
                return
            for plan in plans:
                self._write([plan], done)
        else:
            done.update(zip((plan.draft.path for plan in plans), found, strict=True))


def _in_words(file: File, draft: Draft, found: Found, owners: Owners, sha256: str) -> PresentAt:
    """Return *found* in words. An owner who is the desired one is named as in *file*."""
    return PresentAt(
        sha256=sha256,
        mode=f"{found.mode:04o}",
        size_bytes=found.size_bytes,
        owner=file.owner if found.uid == draft.uid else owners.user(found.uid),
        group=file.group if found.gid == draft.gid else owners.group(found.gid),
    )


def _above(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _turns(all_desired: Sequence[FileRequest]) -> Iterator[list[int]]:
    """Return the indices of *all_desired* in turns, such that no path comes twice in one turn."""
    left = list(range(len(all_desired)))
    if len({desired.file.path for desired in all_desired}) == len(all_desired):
        yield left
        return
    while left:
        paths: set[str] = set()
        turn: list[int] = []
        later: list[int] = []
        for index in left:
            path = all_desired[index].file.path
            (later if path in paths else turn).append(index)
            paths.add(path)
        yield turn
        left = later


def _is_fixed(owner: str) -> bool:
    return owner == "root" or owner.isdecimal()


def _stands_in_the_way(looked: Found | CapabilityError | None) -> bool:
    """Return whether something else than a file is there, or something above it that is no directory."""
    return isinstance(looked, UnsafePath) or (isinstance(looked, Found) and looked.kind != "file")


def _regular(path: str, looked: Found | CapabilityError | None) -> Found | None:
    if isinstance(looked, CapabilityError):
        raise looked
    if looked is not None and looked.kind != "file":
        raise UnsafePath(
            f"{path} is a {kind_in_words(looked)}, not a file; move it away, or choose another path"
        )
    return looked

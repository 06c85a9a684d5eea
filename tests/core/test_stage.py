"""The Stage: every effect of a Score passes it, and nothing that it saw is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import attrs
import pytest

from harmony_core import Container, File, FileSystemHost, HasFiles, NotReady, Resource, errors
from harmony_core.capabilities import HasContainers
from harmony_core.change import Change, UnknownUntilApplied
from harmony_core.errors import (
    CapabilityError,
    HarmonyError,
    MissingCapability,
    MountMissing,
    NotOurs,
    OwnershipConflict,
    PolicyRefused,
    UnsafePath,
    WriteFailed,
)
from harmony_core.resources import FileState, NotAFile, PresentAt
from harmony_core.secret_values import find_words_within, secret_word
from harmony_core.stage import Stage
from harmony_core.steps import Did
from harmony_core.testing import AllowAll, FakeFiles, ListAudit, NoClaims, make_stage
from harmony_core.unexpected import as_harmony_error

MOTD = File(path="/etc/motd", content=b"hello\n")
ISSUE = File(path="/etc/issue", content=b"pi\n")
DOUBTED = File(path="/etc/doubted", content=b"?\n")


class Refusing:
    """A policy that refuses one path."""

    def __init__(self, path: str) -> None:
        self._path = path

    def refusal(self, resource: Resource) -> str | None:
        return self.removal_refusal(resource.id, type(resource))

    def removal_refusal(self, resource_id: str, resource_class: type[Resource]) -> str | None:
        return f"{self._path} is taboo" if resource_id == f"file:{self._path}" else None


class Slow(FakeFiles):
    """Files that are written only when they are let."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.let = asyncio.Event()

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        self.begun.set()
        await self.let.wait()
        return await super().converge(resources, apply=apply)


class Pending(FakeFiles):
    """Files that are in place and not ready."""

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        changes = await super().converge(resources, apply=apply)
        signal = NotReady("give it a second", resource=resources[0].id)
        first = cast("Change", changes[0])
        pending = Change(resource=first.resource, steps=first.steps, pending=signal)
        return [pending, *changes[1:]]


def on(stage: Stage) -> FileSystemHost:
    return cast("FileSystemHost", stage.topology(HasFiles).files)


def stage_of(files: FakeFiles, **more: Any) -> Stage:
    return make_stage({"FileSystemHost": files}, **more)


async def test_a_topology_has_what_was_asked_for_and_nothing_else() -> None:
    topology = stage_of(FakeFiles()).topology(HasFiles)
    assert not hasattr(topology, "systemd")
    assert not hasattr(topology.files, "converge")


def test_what_is_not_offered_cannot_be_had() -> None:
    with pytest.raises(MissingCapability, match="ContainerRuntime"):
        stage_of(FakeFiles()).topology(HasContainers)


async def test_a_change_is_made_remembered_and_audited() -> None:
    files, audit = FakeFiles(), ListAudit()
    stage = stage_of(files, audit=audit)
    changes = await on(stage).ensure(MOTD)
    assert changes.changed
    assert files.read("/etc/motd") == b"hello\n"
    assert list(changes) == stage.changes == audit.changes


async def test_a_resource_that_is_right_is_seen_and_not_a_change() -> None:
    files, audit = FakeFiles(), ListAudit()
    await on(stage_of(files)).ensure(MOTD)
    stage = stage_of(files, audit=audit)
    assert not (await on(stage).ensure(MOTD)).changed
    assert (stage.changes, audit.changes) == ([], [])
    assert isinstance(stage.states["file:/etc/motd"], PresentAt)


async def test_everything_is_claimed_before_anything_happens() -> None:
    files = FakeFiles()

    class Watching(NoClaims):
        async def claim(
            self,
            resources: Sequence[Resource],
            identities: Mapping[str, frozenset[str]] = MappingProxyType({}),
        ) -> None:
            assert files.read("/etc/motd") is None
            await super().claim(resources, identities)

    claims = Watching()
    await on(stage_of(files, claims=claims)).ensure(MOTD, ISSUE)
    assert claims.claimed == ["file:/etc/motd", "file:/etc/issue"]


async def test_policy_refuses_the_whole_call_before_anything_is_claimed_or_done() -> None:
    files, claims = FakeFiles(), NoClaims()
    stage = stage_of(files, claims=claims, policy=Refusing("/etc/issue"))
    with pytest.raises(PolicyRefused, match="taboo") as caught:
        await on(stage).ensure(MOTD, ISSUE)
    assert caught.value.resource == "file:/etc/issue"
    assert claims.claimed == []
    assert files.read("/etc/motd") is None
    assert stage.errors == [caught.value]


async def test_a_dry_run_claims_nothing_does_nothing_and_audits_nothing() -> None:
    files, claims, audit = FakeFiles(), NoClaims(), ListAudit()
    stage = stage_of(files, claims=claims, audit=audit, apply=False)
    assert (await on(stage).ensure(MOTD)).changed
    await on(stage).absent("/etc/other")
    assert files.read("/etc/motd") is None
    assert (claims.claimed, claims.released, audit.changes) == ([], [], [])
    assert len(stage.changes) == 1


async def test_a_dry_run_observes_what_it_would_have_made() -> None:
    files = FakeFiles()
    stage = stage_of(files, apply=False)
    await on(stage).ensure(MOTD)
    planned = await on(stage).observe("/etc/motd")
    assert await files.observe("/etc/motd") is None
    await on(stage_of(files)).ensure(MOTD)
    assert planned == await files.observe("/etc/motd")


async def test_a_dry_run_observes_that_what_it_would_have_removed_is_gone() -> None:
    files = FakeFiles()
    await on(stage_of(files)).ensure(MOTD)
    stage = stage_of(files, apply=False)
    assert (await on(stage).absent("/etc/motd")).changed
    assert await on(stage).observe("/etc/motd") is None
    assert files.read("/etc/motd") is not None


class Lacking(FakeFiles):
    """Files that need what is not there: one fails, and of one it is said that it would."""

    def __init__(self, error: CapabilityError) -> None:
        super().__init__()
        self._error = error

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        found = await super().converge(resources, apply=apply)
        return [
            self._error
            if each is ISSUE
            else attrs.evolve(change, doubt=self._error)
            if each is DOUBTED
            else change
            for each, change in zip(resources, cast("Sequence[Change]", found), strict=True)
        ]


@pytest.mark.parametrize("lacking", [ISSUE, DOUBTED], ids=["fails", "would fail"])
async def test_a_dry_run_fails_for_what_nothing_before_it_changes(lacking: File) -> None:
    stage = stage_of(Lacking(WriteFailed("no user pi")), apply=False)
    with pytest.raises(WriteFailed, match="no user pi"):
        await on(stage).ensure(lacking)
    assert [each.resource for each in stage.errors] == [lacking.id]
    assert stage.changes == []


@pytest.mark.parametrize("awaits_changes", [False, True], ids=["of this Score", "of others"])
async def test_a_dry_run_does_not_know_what_comes_of_changes_before_it(
    *, awaits_changes: bool
) -> None:
    files = Lacking(WriteFailed("no user pi"))
    stage = stage_of(files, apply=False, awaits_changes=awaits_changes)
    if not awaits_changes:
        await on(stage).ensure(MOTD)
    assert (await on(stage).ensure(DOUBTED)).changed
    with pytest.raises(UnknownUntilApplied, match=r"as the device is now: no user pi") as caught:
        await on(stage).ensure(ISSUE)
    assert caught.value.resource == ISSUE.id
    assert stage.errors == []


async def test_what_no_change_before_it_cures_fails_in_a_dry_run_all_the_same() -> None:
    stage = stage_of(Lacking(NotOurs("a stranger's")), apply=False, awaits_changes=True)
    with pytest.raises(NotOurs):
        await on(stage).ensure(ISSUE)


async def test_in_earnest_a_failure_is_one_whatever_was_changed_before_it() -> None:
    stage = stage_of(Lacking(WriteFailed("no user pi")), awaits_changes=True)
    await on(stage).ensure(MOTD)
    with pytest.raises(WriteFailed):
        await on(stage).ensure(ISSUE)


async def test_observing_changes_nothing_and_claims_nothing() -> None:
    files, claims = FakeFiles(), NoClaims()
    files.write("/etc/motd", b"theirs")
    stage = stage_of(files, claims=claims)
    assert isinstance(await on(stage).observe("/etc/motd"), PresentAt)
    assert (stage.changes, claims.claimed) == ([], [])


async def test_what_is_taken_away_is_released() -> None:
    files, claims = FakeFiles(), NoClaims()
    await on(stage_of(files)).ensure(MOTD)
    stage = stage_of(files, claims=claims)
    assert (await on(stage).absent("/etc/motd")).changed
    assert claims.released == ["file:/etc/motd"]
    assert "file:/etc/motd" not in stage.states


@pytest.mark.parametrize("apply", [True, False])
async def test_policy_refuses_also_that_something_is_taken_away(*, apply: bool) -> None:
    files, claims = FakeFiles(), NoClaims()
    await on(stage_of(files)).ensure(MOTD, ISSUE)
    stage = stage_of(files, claims=claims, policy=Refusing("/etc/issue"), apply=apply)
    with pytest.raises(PolicyRefused, match="taboo"):
        await on(stage).absent("/etc/motd", "/etc/issue")
    assert files.exists("/etc/motd")
    assert claims.released == []


async def test_what_another_score_wants_is_not_taken_away() -> None:
    files = FakeFiles()
    await on(stage_of(files)).ensure(MOTD)

    class Theirs(NoClaims):
        async def may_remove(self, resource_ids: Sequence[str]) -> None:
            raise OwnershipConflict("it is wanted", resource=resource_ids[0])

    stage = stage_of(files, claims=Theirs())
    with pytest.raises(OwnershipConflict):
        await on(stage).absent("/etc/motd")
    assert files.exists("/etc/motd")
    assert stage.unwanted == {"file:/etc/motd"}


async def test_what_could_not_be_taken_away_is_not_released() -> None:
    files, claims = FakeFiles(), NoClaims()
    files.write("/etc/motd", b"theirs")
    with pytest.raises(NotOurs):
        await on(stage_of(files, claims=claims)).absent("/etc/motd")
    assert claims.released == []


async def test_what_is_still_going_away_is_not_released() -> None:
    class Lingering(FakeFiles):
        async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
            rid = f"file:{keys[0]}"
            return [Change(resource=rid, pending=NotReady("it takes its time", resource=rid))]

    claims = NoClaims()
    with pytest.raises(NotReady, match="takes its time"):
        await on(stage_of(Lingering(), claims=claims)).absent("/etc/motd")
    assert claims.released == []


async def test_what_was_taken_away_beside_an_error_is_released_all_the_same() -> None:
    files, claims = FakeFiles(), NoClaims()
    await on(stage_of(files)).ensure(MOTD)
    files.write("/etc/issue", b"theirs")
    stage = stage_of(files, claims=claims)
    with pytest.raises(NotOurs):
        await on(stage).absent("/etc/issue", "/etc/motd")
    assert files.read("/etc/motd") is None
    assert claims.released == ["file:/etc/motd"]


async def test_of_several_errors_one_is_raised_and_all_are_remembered() -> None:
    files = FakeFiles()
    files.faults = {"/etc/motd": WriteFailed("full"), "/etc/issue": UnsafePath("a link")}
    stage = stage_of(files)
    fine = File(path="/etc/fine", content=b"")
    with pytest.raises(WriteFailed, match="full"):
        await on(stage).ensure(MOTD, ISSUE, fine)
    assert {error.code for error in stage.errors} == {"WriteFailed", "UnsafePath"}
    assert files.read("/etc/fine") == b""
    assert [change.resource for change in stage.changes] == ["file:/etc/fine"]


async def test_what_could_not_be_brought_about_is_seen_as_it_is() -> None:
    files = FakeFiles()
    files.make_directory("/etc/motd")
    stage = stage_of(files)
    with pytest.raises(UnsafePath):
        await on(stage).ensure(MOTD)
    assert stage.states == {"file:/etc/motd": NotAFile(kind="directory")}


async def test_an_error_that_is_nobody_s_is_remembered_too() -> None:
    files = FakeFiles()
    files.faults = {"/etc/motd": ZeroDivisionError("a defect of the reconciler")}
    stage = stage_of(files)
    with pytest.raises(ZeroDivisionError):
        await on(stage).ensure(MOTD)
    assert [error.code for error in stage.errors] == ["InternalError"]


class Forgetful(FakeFiles):
    """Files whose errors do not say whose they are, and of which all have met the same one."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        return [self.error for _ in resources]

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        return [self.error for _ in keys]

    async def observe(self, key: str) -> FileState | None:
        raise self.error


@pytest.mark.parametrize("verb", ["ensure", "absent"])
async def test_an_error_that_names_nothing_names_what_it_is_the_answer_for(verb: str) -> None:
    error = MountMissing("nothing is mounted at /mnt; mount it", point="/mnt")
    stage = stage_of(Forgetful(error))
    files = on(stage)
    call = files.ensure(MOTD, ISSUE) if verb == "ensure" else files.absent(MOTD.key, ISSUE.key)
    with pytest.raises(MountMissing) as raised:
        await call
    assert [each.resource for each in stage.errors] == ["file:/etc/motd", "file:/etc/issue"]
    assert raised.value is stage.errors[0]
    assert (raised.value.point, raised.value.message) == ("/mnt", error.message)
    assert error.resource is None


async def test_a_defect_that_is_answered_for_several_is_told_of_each_and_raised_as_it_is() -> None:
    defect = ZeroDivisionError("a defect of the reconciler")
    stage = stage_of(Forgetful(defect))
    with pytest.raises(ZeroDivisionError):
        await on(stage).ensure(MOTD, ISSUE)
    found = [(each.code, each.resource, each.__cause__) for each in stage.errors]
    assert found == [("InternalError", each.id, defect) for each in (MOTD, ISSUE)]


async def test_an_error_of_a_look_names_what_was_looked_at() -> None:
    stage = stage_of(Forgetful(WriteFailed("the disk does not answer", retry_after_s=3)))
    with pytest.raises(WriteFailed) as raised:
        await on(stage).observe("/etc/motd")
    assert (raised.value.resource, raised.value.retry_after_s) == ("file:/etc/motd", 3)
    assert stage.errors == [raised.value]


async def test_an_error_that_names_another_resource_goes_on_naming_it() -> None:
    theirs = UnsafePath("/etc is a link", resource="directory:/etc")
    stage = stage_of(Forgetful(theirs))
    with pytest.raises(UnsafePath):
        await on(stage).ensure(MOTD)
    assert stage.errors == [theirs]


@pytest.mark.parametrize("kind", errors.__all__)
def test_any_error_can_be_told_of_one_resource_more(kind: str) -> None:
    class_ = getattr(errors, kind)
    error = class_.__new__(class_, "it is broken")
    HarmonyError.__init__(error, "it is broken")
    error.detail = ["a"]
    named = as_harmony_error(error, resource="file:/etc/motd")
    assert type(named) is class_
    assert (str(named), named.resource, vars(named)["detail"]) == ("it is broken", MOTD.id, ["a"])


async def test_not_ready_is_raised_after_everything_was_done_and_is_no_error() -> None:
    files = Pending()
    stage = stage_of(files)
    with pytest.raises(NotReady, match="give it a second"):
        await on(stage).ensure(MOTD, ISSUE)
    assert files.read("/etc/issue") == b"pi\n"
    assert [signal.resource for signal in stage.signals] == ["file:/etc/motd"]
    assert stage.errors == []
    assert len(stage.changes) == 2


class Awaiting(FakeFiles):
    """Files of which nothing is written before its content has come: to be made, or to be taken away."""

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        results = await super().converge(resources[1:], apply=apply)
        return [NotReady("fetching", resource=resources[0].id, reason="Progressing"), *results]

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        return [NotReady("going", resource=f"file:{key}") for key in keys]


async def test_what_a_reconciler_answers_not_ready_for_is_waited_for_and_no_error() -> None:
    files, claims = Awaiting(), NoClaims()
    stage = stage_of(files, claims=claims)
    with pytest.raises(NotReady, match="fetching"):
        await on(stage).ensure(MOTD, ISSUE)
    assert (files.read("/etc/motd"), files.read("/etc/issue")) == (None, b"pi\n")
    assert [signal.resource for signal in stage.signals] == ["file:/etc/motd"]
    assert stage.errors == []
    with pytest.raises(NotReady, match="going"):
        await on(stage).absent("/etc/issue")
    assert (stage.errors, claims.released) == ([], [])


async def test_what_is_waited_for_beside_an_error_is_looked_at_again() -> None:
    files = Awaiting()
    files.faults = {"/etc/issue": UnsafePath("a link")}
    stage = stage_of(files)
    with pytest.raises(UnsafePath):
        await on(stage).ensure(MOTD, ISSUE)
    assert [error.code for error in stage.errors] == ["UnsafePath"]
    assert [signal.resource for signal in stage.signals] == ["file:/etc/motd"]


async def test_a_verb_under_way_is_not_interrupted_and_settled_waits_for_it() -> None:
    files = Slow()
    stage = stage_of(files)
    verb = asyncio.create_task(on(stage).ensure(MOTD))
    await files.begun.wait()
    verb.cancel()
    with pytest.raises(asyncio.CancelledError):
        await verb
    settled = asyncio.create_task(stage.wait_idle())
    await asyncio.sleep(0)
    assert not settled.done()
    files.let.set()
    await settled
    assert files.read("/etc/motd") == b"hello\n"
    assert [change.resource for change in stage.changes] == ["file:/etc/motd"]


async def test_an_error_of_a_verb_that_outlives_its_caller_is_remembered() -> None:
    files = Slow()
    files.faults = {"/etc/motd": WriteFailed("full")}
    stage = stage_of(files)
    verb = asyncio.create_task(on(stage).ensure(MOTD))
    await files.begun.wait()
    verb.cancel()
    files.let.set()
    await stage.wait_idle()
    assert [error.code for error in stage.errors] == ["WriteFailed"]


async def test_with_nothing_under_way_it_is_settled_at_once() -> None:
    async with asyncio.timeout(1):
        await stage_of(FakeFiles()).wait_idle()


async def test_a_stranger_s_resource_type_passes_the_same_stage() -> None:
    """Capabilities differ in their resource only, so nothing here is made for ours."""
    claims = NoClaims()
    stage = make_stage({"ContainerRuntime": cast("Any", Renamed())}, claims=claims)
    container = Container(name="web", image="localhost/web:1")
    assert (await stage.topology(HasContainers).containers.ensure(container)).changed
    assert claims.claimed == ["container:web"]


class Renamed(FakeFiles):
    """A reconciler of something else altogether."""

    async def converge(
        self, resources: Sequence[Resource], *, apply: bool
    ) -> Sequence[Change | Exception]:
        return [Change(resource=resource.id, steps=(Did("made"),)) for resource in resources]


WORD = secret_word("web", "db", "00" * 8)


def with_secrets(files: FakeFiles, *, apply: bool) -> Stage:
    return Stage(
        offers={"FileSystemHost": files},
        policy=AllowAll(),
        claims=NoClaims(),
        audit=ListAudit(),
        apply=apply,
        secret_words=[WORD],
    )


async def test_a_secret_of_which_no_hash_is_told_counts_as_rewritten_when_it_is() -> None:
    files, secret = FakeFiles(), File(path="/etc/key", content=WORD.encode(), mode=0o600)
    files.secret_values.put(WORD, "hunter2")
    await on(with_secrets(files, apply=True)).ensure(secret)
    for mode, content, rewritten in (
        (0o600, b"hunter2", set[str]()),
        (0o640, b"hunter2", set[str]()),
        (0o600, b"hunter1", {"/etc/key"}),
    ):
        files.write("/etc/key", content, mode=mode)
        stage = with_secrets(files, apply=False)
        await on(stage).ensure(secret)
        assert stage.rewritten == rewritten


class Blob(Resource):
    """Something with bytes, and more within it."""

    resource_type = "blob"
    data: bytes = b""
    inner: tuple[dict[str, File], ...] = ()

    @property
    def key(self) -> str:
        return "blob"


@pytest.mark.parametrize(
    "blob",
    [
        Blob(data=b"\xff" + WORD.encode()),
        Blob(inner=({WORD: MOTD},)),
        Blob(inner=({"a": File(path="/etc/key", content=WORD.encode(), mode=0o600)},)),
    ],
    ids=["bytes", "a name", "within"],
)
def test_a_word_is_found_in_bytes_too_where_its_value_would_not_come(blob: Blob) -> None:
    assert find_words_within(blob) == {WORD}
    assert find_words_within(Blob(data=b"<secret a b>")) == set()

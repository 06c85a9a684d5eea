"""Interpreting: the Outcome is never better than what the Stage saw, whatever an author catches."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar, cast

import pytest
from pydantic import PrivateAttr

from harmony_core import (
    Change,
    Failure,
    File,
    HasFiles,
    Inventory,
    Noop,
    NotReady,
    Outcome,
    Progress,
    Resource,
    Running,
    Score,
    Success,
    outcome_of,
)
from harmony_core.errors import (
    HarmonyError,
    InterpretationFailed,
    NotOurs,
    PolicyRefused,
    TimedOut,
    UnsafePath,
    WriteFailed,
)
from harmony_core.interpretation import Verdict, failure_of, interpret
from harmony_core.outcome import ErrorInfo
from harmony_core.steps import Started
from harmony_core.testing import (
    AllowAll,
    FakeFiles,
    interpret_once,
    interpret_twice,
    inventory,
    make_stage,
)

MOTD = File(path="/etc/motd", content=b"hello\n")
ISSUE = File(path="/etc/issue", content=b"pi\n")

Act = Callable[[Inventory, HasFiles], Awaitable[Any]]


class Acting(Score[HasFiles]):
    """Does what a test says."""

    kind: ClassVar[str] = "Acting"
    _act: Act = PrivateAttr()

    def __init__(self, act: Act) -> None:
        super().__init__()
        self._act = act

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        return cast("Outcome", await self._act(inventory, topology))


class NotYet(FakeFiles):
    """Files that are in place at once and ready never."""

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        await super().converge(resources, apply=apply)
        signal = NotReady(
            "booting",
            resource=resources[0].id,
            reason="Progressing",
            progress=Progress(done=1, total=3, unit="steps"),
            look_again_s=0.5,
        )
        return [Change(resource=resources[0].id, steps=(Started(),), pending=signal)]


class Slow(FakeFiles):
    """Files that take their time; what is asked of them comes about all the same."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self._error = error

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        await asyncio.sleep(0.01)
        done = await super().converge(resources, apply=apply)
        return done if self._error is None else [self._error]


async def run(act: Act, files: FakeFiles | None = None) -> Verdict:
    return await interpret_once(Acting(act), {"FileSystemHost": files or FakeFiles()})


def code_of(verdict: Verdict) -> str:
    assert isinstance(verdict.outcome, Failure)
    return verdict.outcome.error.code


def full() -> FakeFiles:
    files = FakeFiles()
    files.faults = {"/etc/motd": WriteFailed("the disk is full", retry_after_s=7)}
    return files


async def ensure_motd(inventory: Inventory, topology: HasFiles) -> Outcome:
    return outcome_of(await topology.files.ensure(MOTD))


async def test_success_then_noop() -> None:
    first, second = await interpret_twice(Acting(ensure_motd), {"FileSystemHost": FakeFiles()})
    assert first == Success(message="file:/etc/motd created")
    assert second == Noop()


async def test_success_and_noop_are_told_apart_by_what_was_changed_not_by_what_is_said() -> None:
    async def modest(inventory: Inventory, topology: HasFiles) -> Outcome:
        await topology.files.ensure(MOTD)
        return Noop(message="nothing to speak of")

    async def boastful(inventory: Inventory, topology: HasFiles) -> Outcome:
        return Success(message="done!")

    assert (await run(modest)).outcome == Success(message="nothing to speak of")
    assert (await run(boastful)).outcome == Noop(message="done!")


async def test_many_changes_are_told_in_one_line() -> None:
    async def act(inventory: Inventory, topology: HasFiles) -> Outcome:
        return outcome_of(await topology.files.ensure(MOTD, ISSUE))

    outcome = (await run(act)).outcome
    assert outcome.message == "file:/etc/motd created; and 1 more"


async def test_an_error_is_a_failure_with_its_code_and_resource() -> None:
    error = WriteFailed("the disk is full\nlines\nof detail", resource="file:/etc/motd")
    files = FakeFiles()
    files.faults = {"/etc/motd": error}
    verdict = await run(ensure_motd, files)
    assert verdict.outcome == Failure(
        error=ErrorInfo(code="WriteFailed", message=error.message, resource="file:/etc/motd"),
        message="the disk is full",
    )
    assert not verdict.permanent


async def test_an_error_says_itself_when_to_try_again() -> None:
    assert (await run(ensure_motd, full())).retry_after_s == 7


async def test_an_error_that_the_author_swallowed_is_a_failure_all_the_same() -> None:
    async def swallowing(inventory: Inventory, topology: HasFiles) -> Outcome:
        try:
            return outcome_of(await topology.files.ensure(MOTD))
        except Exception:  # noqa: BLE001 - what careless authors do
            return Success(message="all is well")

    assert code_of(await run(swallowing, full())) == "WriteFailed"


async def test_errors_that_gather_returned_are_failures_all_the_same() -> None:
    async def gathering(inventory: Inventory, topology: HasFiles) -> Outcome:
        await asyncio.gather(
            topology.files.ensure(MOTD), topology.files.ensure(ISSUE), return_exceptions=True
        )
        return Success()

    assert code_of(await run(gathering, full())) == "WriteFailed"


async def test_what_the_author_gave_up_on_or_never_waited_for_counts_once_it_has_landed() -> None:
    async def hurried(inventory: Inventory, topology: HasFiles) -> Outcome:
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await topology.files.ensure(MOTD)
        return Noop()

    async def careless(inventory: Inventory, topology: HasFiles) -> Outcome:
        begun.append(asyncio.ensure_future(topology.files.ensure(MOTD)))
        await asyncio.sleep(0)
        return Noop()

    begun: list[asyncio.Future[Any]] = []
    for interpret_it in (hurried, careless):
        assert code_of(await run(interpret_it, Slow(WriteFailed("no room")))) == "WriteFailed"
        assert isinstance((await run(interpret_it, Slow())).outcome, Success)
    assert isinstance(begun[0].exception(), WriteFailed)


async def test_a_defect_of_a_reconciler_that_was_swallowed_is_a_failure_all_the_same() -> None:
    files = FakeFiles()
    files.faults = {"/etc/motd": ZeroDivisionError("a defect")}

    async def swallowing(inventory: Inventory, topology: HasFiles) -> Outcome:
        await asyncio.gather(topology.files.ensure(MOTD), return_exceptions=True)
        return Success()

    assert code_of(await run(swallowing, files)) == "InternalError"


async def test_an_error_that_was_swallowed_counts_before_a_signal() -> None:
    class Both(NotYet):
        async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
            return [NotOurs("theirs")]

    async def act(inventory: Inventory, topology: HasFiles) -> Outcome:
        await asyncio.gather(
            topology.files.ensure(MOTD), topology.files.absent("/etc/x"), return_exceptions=True
        )
        return Success()

    assert code_of(await run(act, Both())) == "NotOurs"


async def test_all_that_failed_is_told_and_what_may_pass_is_tried_again() -> None:
    files = full()
    files.faults["/etc/issue"] = UnsafePath("a link")

    async def act(inventory: Inventory, topology: HasFiles) -> Outcome:
        return outcome_of(await topology.files.ensure(MOTD, ISSUE))

    verdict = await run(act, files)
    assert code_of(verdict) == "UnsafePath"
    assert verdict.outcome.message == "file:/etc/motd: the disk is full; file:/etc/issue: a link"
    assert (verdict.permanent, verdict.retry_after_s, verdict.went_on) == (False, 7, False)


async def test_not_ready_is_running_and_says_when_to_look_again() -> None:
    verdict = await run(ensure_motd, NotYet())
    assert verdict.outcome == Running(
        reason="Progressing",
        message="booting",
        progress=Progress(done=1, total=3, unit="steps"),
    )
    assert verdict.look_again_s == 0.5


async def test_not_ready_that_the_author_swallowed_is_running_all_the_same() -> None:
    async def swallowing(inventory: Inventory, topology: HasFiles) -> Outcome:
        await asyncio.gather(topology.files.ensure(MOTD), return_exceptions=True)
        return Success()

    assert isinstance((await run(swallowing, NotYet())).outcome, Running)


async def test_not_ready_that_the_author_raised_is_running() -> None:
    async def waiting(inventory: Inventory, topology: HasFiles) -> Outcome:
        raise NotReady("the sun is not up", resource="file:/etc/motd", look_again_s=60)

    verdict = await run(waiting)
    assert isinstance(verdict.outcome, Running)
    assert verdict.look_again_s == 60


async def test_running_that_the_author_returned_is_looked_at_again() -> None:
    async def waiting(inventory: Inventory, topology: HasFiles) -> Outcome:
        return Running(reason="NotReady", message="soon")

    verdict = await run(waiting)
    assert verdict.outcome == Running(reason="NotReady", message="soon")
    assert verdict.look_again_s is not None


async def test_a_failure_that_the_author_returned_stands() -> None:
    failure = Failure(error=ErrorInfo(code="Mine", message="no"))

    async def failing(inventory: Inventory, topology: HasFiles) -> Outcome:
        return failure

    assert (await run(failing)).outcome == failure


async def test_policy_refuses_before_anything_is_done() -> None:
    class NoMotd(AllowAll):
        def refusal(self, resource: Resource) -> str | None:
            return "motd is taboo" if resource.key == "/etc/motd" else None

    files = FakeFiles()

    async def act(inventory: Inventory, topology: HasFiles) -> Outcome:
        return outcome_of(await topology.files.ensure(ISSUE, MOTD))

    stage = make_stage({"FileSystemHost": files}, policy=NoMotd())
    verdict = await interpret(Acting(act), inventory(), stage)
    assert code_of(verdict) == PolicyRefused.code
    assert verdict.permanent
    assert not files.exists("/etc")


async def test_a_defect_of_the_score_is_a_failure_that_names_the_line() -> None:
    async def broken(inventory: Inventory, topology: HasFiles) -> Outcome:
        raise KeyError("oops")

    verdict = await run(broken)
    assert isinstance(verdict.outcome, Failure)
    assert verdict.permanent
    assert "KeyError: 'oops'" in verdict.outcome.error.message
    assert "test_interpretation.py" in verdict.outcome.error.message


async def test_a_resource_that_is_not_valid_is_named_by_its_field() -> None:
    async def act(inventory: Inventory, topology: HasFiles) -> Outcome:
        return outcome_of(await topology.files.ensure(File(path="motd", content=b"")))

    verdict = await run(act)
    assert isinstance(verdict.outcome, Failure)
    assert verdict.outcome.error.code == "InvalidResource"
    assert verdict.outcome.error.message.startswith("File: path: ")


@pytest.mark.parametrize("returned", [None, True, "SUCCESS", {"status": "SUCCESS"}])
async def test_what_is_no_outcome_is_a_failure_that_says_what_to_return(returned: object) -> None:
    async def act(inventory: Inventory, topology: HasFiles) -> Any:
        return returned

    verdict = await run(act)
    assert isinstance(verdict.outcome, Failure)
    assert "must return an Outcome" in verdict.outcome.error.message


async def test_a_fact_that_is_missing_is_a_failure_that_names_it() -> None:
    async def act(inventory: Inventory, topology: HasFiles) -> Outcome:
        return Success(message=inventory.labels["site"])

    assert code_of(await run(act)) == "FactMissing"


async def test_a_score_that_exits_ends_its_own_interpretation_only() -> None:
    async def act(inventory: Inventory, topology: HasFiles) -> Outcome:
        sys.exit(3)

    assert code_of(await run(act)) == "InterpretationFailed"


async def test_a_score_that_cancels_itself_has_failed() -> None:
    async def act(inventory: Inventory, topology: HasFiles) -> Outcome:
        raise asyncio.CancelledError

    assert code_of(await run(act)) == "InterpretationFailed"


async def test_cancelling_acts_between_two_verbs_and_passes_through() -> None:
    files = FakeFiles()
    between = asyncio.Event()

    async def act(inventory: Inventory, topology: HasFiles) -> Outcome:
        await topology.files.ensure(MOTD)
        between.set()
        await asyncio.Event().wait()
        return outcome_of(await topology.files.ensure(ISSUE))

    stage = make_stage({"FileSystemHost": files})
    task = asyncio.create_task(interpret(Acting(act), inventory(), stage))
    await between.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await stage.wait_idle()
    assert (files.read("/etc/motd"), files.read("/etc/issue")) == (b"hello\n", None)


async def test_a_dry_run_goes_the_same_way_and_touches_nothing() -> None:
    files = FakeFiles()

    async def act(inventory: Inventory, topology: HasFiles) -> Outcome:
        made = await topology.files.ensure(MOTD)
        assert await topology.files.observe("/etc/motd") is not None
        return outcome_of(made, await topology.files.ensure(ISSUE))

    offers = {"FileSystemHost": files}
    planned = await interpret_once(Acting(act), offers, apply=False)
    assert not files.exists("/etc")
    assert (await interpret_once(Acting(act), offers)).outcome == planned.outcome


@pytest.mark.parametrize(
    ("error", "permanent", "retry_after_s"),
    [
        (TimedOut("slow", retry_after_s=30), False, 30),
        (TimedOut("slow"), False, None),
        (UnsafePath("a link"), True, None),
        (InterpretationFailed("a defect"), True, None),
        (HarmonyError("something"), False, None),
    ],
)
def test_an_error_is_a_decision_about_trying_again(
    error: HarmonyError, permanent: bool, retry_after_s: float | None
) -> None:
    verdict = failure_of(error)
    assert (verdict.permanent, verdict.retry_after_s) == (permanent, retry_after_s)
    assert code_of(verdict) == type(error).__name__


@pytest.mark.parametrize("verb", ["ensure", "absent", "observe"])
async def test_a_verb_that_was_never_awaited_is_a_failure_that_names_it(verb: str) -> None:
    """Nothing was done, and NOOP would say that nothing had to be."""
    key = MOTD if verb == "ensure" else MOTD.path

    async def forgets(_: Inventory, topology: HasFiles) -> Outcome:
        getattr(topology.files, verb)(key)
        return Noop()

    files = FakeFiles()
    verdict = await run(forgets, files)
    assert isinstance(verdict.outcome, Failure)
    assert verdict.outcome.error.code == "InterpretationFailed"
    assert f"write: await topology.files.{verb}(…)" in verdict.outcome.message
    assert files.read(MOTD.path) is None


async def test_of_several_verbs_the_one_that_was_forgotten_is_found() -> None:
    async def forgets(_: Inventory, topology: HasFiles) -> Outcome:
        done = await topology.files.ensure(MOTD)
        topology.files.ensure(ISSUE)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
        return outcome_of(done)

    files = FakeFiles()
    assert isinstance((await run(forgets, files)).outcome, Failure)
    assert files.read(MOTD.path) == MOTD.content


async def test_a_verb_that_was_made_a_task_and_not_awaited_is_done_all_the_same() -> None:
    tasks: list[asyncio.Future[Any]] = []

    async def begins(_: Inventory, topology: HasFiles) -> Outcome:
        tasks.append(asyncio.ensure_future(topology.files.ensure(MOTD)))
        return Noop()

    files = FakeFiles()
    assert isinstance((await run(begins, files)).outcome, Success)
    assert files.read(MOTD.path) == MOTD.content
    await asyncio.gather(*tasks)


async def test_what_was_not_come_to_for_an_error_before_it_is_told_as_that_error() -> None:
    async def stumbles(_: Inventory, topology: HasFiles) -> Outcome:
        later = topology.files.ensure(MOTD)
        raise WriteFailed("the disk is full")
        return outcome_of(await later)  # type: ignore[unreachable]

    outcome = (await run(stumbles, FakeFiles())).outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "WriteFailed"

"""Jobs, reconciled: all of it but running them, so that every reconciler of them judges alike.

    run to its end with this specification -> nothing to do
    begun with it    -> still runs: RUNNING     has ended: told, then judged     is nowhere: interrupted
    not begun        -> its question, if it has one -> noted as begun, durably -> begun

A job is begun at most once for each specification: what is noted as begun and is nowhere to be found has
been cut short, by a reboot say, and nobody knows where; it is not begun again unless it says that it may be.
A question is not asked in a dry run, and in earnest once a boot, so the periodic pass costs nothing. It is
asked once more when somebody asks for that, and, apart from any turn, when a file changes that its answer is
seen in: what that finds to be needed is due from then on, also in a dry run. An answer that changes nothing
is not noted.

What has failed is due again once anything of its specification is another, its limits too.

What is recorded of ``job:NAME``: ``spec``, `Job.run_hash`; ``whole``, the hash of all with which it was
begun; ``state``, of begun, failed, told (failed, and the failure was told), done, unneeded; ``boot``, in
which boot its question was asked last; ``ran``, whether it was ever begun; the fields of its `JobState`; and
``undo``, what takes it back, with what it needs. That is run until it has succeeded, as long as the device
allows it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Protocol

import attrs

from harmony_core.change import Change, NotReady, UnknownUntilApplied
from harmony_core.errors import (
    CapabilityError,
    JobAttemptFailed,
    JobFailed,
    JobInterrupted,
    TimedOut,
)
from harmony_core.reasons import reasons_in
from harmony_core.reconciler import JsonRecord, Records
from harmony_core.resources import Finished, InProgress, Job, JobState, NotNeeded, resource_id
from harmony_core.steps import Did
from harmony_core.visible import cut
from harmony_pi_topology.common.gather import name_resource

from .watch import Answer
from .words import failure, has_answered, has_succeeded, how, script, tails

__all__ = ["JobEngine", "Jobs", "Permission", "Sight"]

QUESTION_WITHIN_S = 10.0
_LOOK_FIRST_S = 0.1
_LOOK_LAST_S = 5.0
_FAILED_MOST = 500
"""Characters of how it failed, beside that it runs again."""
_LOOKS_AN_AGE = 5
_ASKED_AGAIN_AFTER_S = 2.0
_CLEARED_AGAIN_AFTER_S = 1.0
_CANNOT_BE_TOLD_NOW = 75
"""EX_TEMPFAIL of sysexits.h, as the exit code of a question."""
_OF_THE_RECORD = frozenset({"spec", "whole", "state", "boot", "ran", "undo"})

_IN_ORDER = frozenset({"done", "unneeded"})

FORGOTTEN = "forgotten: what it did stays"
UNDONE = Did("undone")
BEGUN = Did("begun")


@attrs.frozen(kw_only=True)
class Sight:
    """A job that is there: it runs, or has ended and was not let go."""

    since: str
    age_s: float
    end: Finished | None = None


class JobEngine(Protocol):
    """Runs programs apart from us: they outlive us, and are found again by their names."""

    @property
    def boot_id(self) -> str:
        """Of the device's present boot, which no job outlives."""
        ...

    def now(self) -> str:
        """Return the time of the device's clock, in RFC 3339."""
        ...

    async def begin(self, job: Job, name: str) -> None:
        """Run the job's command as *name*, which is free: see `let_go`. Return at once; a failure is seen at
        its end."""

    async def look(self, name: str) -> Sight | None:
        """Return what runs, or ran, under that name."""
        ...

    async def let_go(self, name: str) -> None:
        """End it if it runs, and forget it. Idempotent."""


class Permission(Protocol):
    """What this device allows: `harmony_core.stage.Policy`."""

    def refusal(self, resource: Job) -> str | None:
        """Return why *resource* may not be run here, with the remedy; None when it may."""


def undo_of(job: Job) -> Job:
    """Return the command that undoes it, as a job."""
    changes = {"command": job.undo, "undo": (), "undo_always": False, "unless": (), "retry": True}
    return job.model_copy(update=changes)


def question_of(job: Job) -> Job:
    """Return the ``unless`` of *job* as a job that can change nothing and has no network."""
    return Job(
        name=job.name,
        command=job.unless,
        environment=job.environment,
        time_limit_s=QUESTION_WITHIN_S,
    )


def _undo_name(name: str) -> str:
    """Return the name under which the undo command of job *name* runs. No job has a dot in its name."""
    return f"{name}.undo"


class Jobs:
    """What every `Reconciler` of jobs does, whatever runs them."""

    def __init__(self, engine: JobEngine, records: Records, policy: Permission) -> None:
        self._engine = engine
        self._records = records
        self._policy = policy
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._known: dict[str, Job] = {}
        """Each job that was converged, as it was then."""
        self._stale: set[str] = set()
        """Those of which somebody wants to know again whether they are needed."""
        self._needed: set[str] = set()
        """Those that were found to be needed, apart from any turn."""
        self._answered: set[str] = set()
        """Those whose question was answered, or which ended well, since this process began."""
        self._failed: dict[str, str] = {}
        """How each ended last that has failed since then, and is run again, by its `run_hash`."""
        self._unbegun: set[str] = set()
        """Those that were noted as begun, and could not be."""
        self._uncleared: set[str] = set()
        """Those whose end is noted, and that could not be let go."""

    @property
    def resource_class(self) -> type[Job]:
        return Job

    def ask_again(self, keys: Collection[str] | None) -> None:
        """Ask each ``unless`` again."""
        asked = self._known.keys() if keys is None else self._known.keys() & set(keys)
        self._stale.update(name for name in asked if self._known[name].unless)

    async def ask(self, name: str) -> Answer:
        """Ask whether *name*, which was run or not needed, is to be run now; it is due from then on if so.

        For one that is due anyway, or has failed, return "unneeded": its turn decides.
        """
        async with self._locks[name]:
            job, record = self._known.get(name), self._records.get(_id(name))
            if job is None or record is None or not job.unless or record["spec"] != job.run_hash:
                return "unneeded"
            if record["state"] == "begun":
                return "unknown"
            if record["state"] not in _IN_ORDER or self._policy.refusal(job) is not None:
                return "unneeded"
            try:
                answer, _, said = await self._ask(job)
                if answer == "unneeded":
                    await self._leave(job, _state(record), said)
            except CapabilityError:
                return "unknown"
            return answer

    async def look_again(self, keys: Collection[str]) -> None:
        for name in keys:
            job, record = self._known.get(name), self._records.get(_id(name))
            if job is not None and record is not None and not self._was_asked(job, record):
                await self.ask(name)

    async def converge(
        self, resources: Sequence[Job], *, apply: bool
    ) -> Sequence[Change | Exception]:
        return await asyncio.gather(*(self._converge_one(each, apply=apply) for each in resources))

    async def observe(self, key: str) -> JobState | None:
        """Return what is recorded of it."""
        return _state(self._records.get(_id(key)))

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        """Remove *keys*. A job that runs is ended. What it did stays, unless the job says how to undo it."""
        return await asyncio.gather(*(self._remove_one(each, apply=apply) for each in keys))

    async def _converge_one(self, job: Job, *, apply: bool) -> Change | Exception:
        async with self._locks[job.name]:
            try:
                return await self._converge(job, apply=apply)
            except CapabilityError as error:
                return name_resource(error, job.id)

    async def _converge(self, job: Job, *, apply: bool) -> Change:
        self._known[job.name] = job
        record = self._records.get(job.id)
        state = _state(record)
        if record is None or record["spec"] != job.run_hash:
            return await self._due(job, state, apply=apply)
        if apply and record["state"] != "begun":
            await self._clear_away(job.name)
        match record["state"]:
            case "failed" | "told" if record.get("whole", job.spec_hash) != job.spec_hash:
                return await self._due(job, state, apply=apply)
            case "done" | "unneeded" if self._was_asked(job, record):
                return Change(resource=job.id, before=state, after=state)
            case "begun":
                return await self._start(job, state, apply=apply)
            case "failed":
                if apply and job.retry:
                    await self._records.put(job.id, {**record, "state": "told"})
                raise failure(job, state)
            case "told" if not job.retry:
                raise failure(job, state)
            case _:
                return await self._due(job, state, apply=apply)

    def _was_asked(self, job: Job, record: JsonRecord) -> bool:
        if not job.unless:
            return True
        # What changed a file while no agent was there to hear of it is found when one starts.
        is_watched = not job.asked_when_changed or job.name in self._answered
        is_due = job.name in self._stale or job.name in self._needed
        return is_watched and not is_due and record["boot"] == self._engine.boot_id

    async def _start(self, job: Job, state: JobState | None, *, apply: bool) -> Change:
        sight = await self._engine.look(job.name)
        if sight is None:
            if job.retry or job.name in self._unbegun:
                return await self._due(job, state, apply=apply)
            raise JobInterrupted(
                f"{job.name} was begun, and was cut short before its end was seen; look how far it came, "
                "then change it, or let it say that it may be run again (retry)"
            )
        if sight.end is None or not apply:
            return self._under_way(job, state, sight)
        return await self._evaluate_end(job, state, sight.end)

    def _under_way(self, job: Job, state: JobState | None, sight: Sight) -> Change:
        failed = self._failed.get(job.run_hash)
        waits = _waits(job, sight.since, age_s=sight.age_s, failed=failed)
        return Change(resource=job.id, before=state, after=state, pending=waits)

    async def _evaluate_end(self, job: Job, state: JobState | None, end: Finished) -> Change:
        well = has_succeeded(end)
        end = attrs.evolve(end, sha256=job.run_hash)
        await self._note(job, "done" if well else "failed", end)
        if well:
            self._take_answer(job.name, "unneeded")
            self._failed.pop(job.run_hash, None)
        else:
            self._failed[job.run_hash] = failure(job, end).message
        # In place of what was done is told neither that it failed nor that it cannot be let go: these are for
        # the next look.
        self._uncleared.add(job.name)
        with suppress(CapabilityError):
            await self._clear_away(job.name)
        pending = None
        if not well:
            pending = NotReady("it has failed", resource=job.id, look_again_s=0.05)
        elif job.name in self._uncleared:
            pending = NotReady(
                f"{job.name} has ended, and what it ran in is still to be cleared away",
                resource=job.id,
                reason="Progressing",
                look_again_s=_CLEARED_AGAIN_AFTER_S,
            )
        return Change(
            resource=job.id,
            steps=(Did("ran to its end" if well else f"failed: {how(end)}"),),
            before=state,
            after=end,
            pending=pending,
        )

    async def _clear_away(self, name: str) -> None:
        """Forget *name*, where that was not done when it had ended."""
        if name in self._uncleared:
            await self._engine.let_go(name)
            self._uncleared.discard(name)

    async def _due(self, job: Job, state: JobState | None, *, apply: bool) -> Change:
        """Run *job*, unless there is no need."""
        if not apply:
            return _plan_one(job, state, is_needed=job.name in self._needed)
        self._uncleared.add(job.name)  # perhaps by what runs with an older specification
        await self._clear_away(job.name)
        if job.unless:
            answer, why, said = await self._ask(job)
            if answer == "unknown":
                return Change(resource=job.id, before=state, after=state, pending=why)
            if answer == "unneeded":
                return await self._leave(job, state, said)
            self._take_answer(job.name, "unneeded")  # from here on its end says how it is
        begun = InProgress(since=self._engine.now())
        await self._note(job, "begun", begun)
        await self._begin(job)
        return Change(
            resource=job.id,
            steps=(BEGUN,),
            before=state,
            after=begun,
            diff=script(job),
            pending=_waits(job, begun.since, age_s=0.0, failed=self._failed.get(job.run_hash)),
        )

    async def _begin(self, job: Job) -> None:
        self._unbegun.discard(job.name)
        try:
            await self._engine.begin(job, job.name)
        except TimedOut:
            raise  # it may yet be begun
        except CapabilityError:
            # Where it is not there at the next look, it never was: nothing was cut short.
            self._unbegun.add(job.name)
            raise

    async def _leave(self, job: Job, state: JobState | None, said: str) -> Change:
        """Return that there is nothing to do, as the job's question has *said*. Record that, unless it is
        known of this boot already."""
        record = self._records.get(job.id)
        if (
            record is not None
            and record["spec"] == job.run_hash
            and record["state"] in _IN_ORDER
            and record["boot"] == self._engine.boot_id
        ):
            return Change(resource=job.id, before=state, after=state)
        unneeded = NotNeeded(at=self._engine.now(), stdout=said)
        await self._note(job, "unneeded", unneeded)
        return Change(resource=job.id, before=state, after=unneeded)

    def _take_answer(self, name: str, answer: Answer) -> None:
        if answer == "unknown":
            return
        self._answered.add(name)
        self._stale.discard(name)
        (self._needed.add if answer == "needed" else self._needed.discard)(name)

    async def _ask(self, job: Job) -> tuple[Answer, NotReady | None, str]:
        """Ask the question of *job*, and keep its answer. Return the answer, why it cannot be told now, and
        what the question has said."""
        end = await self._end_of_question(question_of(job))
        if end.exit_code == _CANNOT_BE_TOLD_NOW:
            why = reasons_in(end.stderr) or "its question says that it cannot be told now"
            message = f"whether {job.name} is to be run is asked again soon: {why}"
            not_now = NotReady(
                message,
                resource=job.id,
                reason="Progressing",
                look_again_s=_ASKED_AGAIN_AFTER_S,
            )
            return "unknown", not_now, ""
        answer: Answer = "unneeded" if end.exit_code == 0 else "needed"
        self._take_answer(job.name, answer)
        return answer, None, end.stdout if job.recurring else ""

    async def _end_of_question(self, question: Job) -> Finished:
        name = f"{question.name}.unless"  # no job has a dot in its name
        await self._engine.let_go(name)
        await self._engine.begin(question, name)
        try:
            async with asyncio.timeout(2 * QUESTION_WITHIN_S):
                end = await self._end_of(name)
        except TimeoutError:
            raise JobAttemptFailed(
                f"its question did not end within {QUESTION_WITHIN_S:g} s"
            ) from None
        finally:
            await self._engine.let_go(name)
        if not has_answered(end):
            raise JobFailed(
                f"whether it is needed cannot be told, since unless {how(end)}{tails(end)}"
            )
        return end

    async def _end_of(self, name: str) -> Finished:
        wait_s = _LOOK_FIRST_S / 5
        while True:
            sight = await self._engine.look(name)
            if sight is None:
                raise JobAttemptFailed("somebody has ended its question; it is asked again")
            if sight.end is not None:
                return sight.end
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, 1.0)

    async def _note(self, job: Job, state: str, about: JobState) -> None:
        before = self._records.get(job.id)
        # What has ended did so within the limits that it was begun with.
        ended = before if state in {"done", "failed"} else None
        record = {
            "spec": job.run_hash,
            "whole": (ended or {}).get("whole", job.spec_hash),
            "state": state,
            "boot": self._engine.boot_id,
            "ran": job.undo_always or state != "unneeded" or (before is not None and before["ran"]),
            **(
                {
                    "undo": undo_of(job).model_dump(
                        mode="json", exclude={"claims", "recurring", "undo_always"}
                    )
                }
                if job.undo
                else {}
            ),
            **attrs.asdict(about),
        }
        await self._records.put(job.id, record)

    async def _remove_one(self, name: str, *, apply: bool) -> Change | Exception:
        async with self._locks[name]:
            try:
                return await self._take_away(name, apply=apply)
            except CapabilityError as error:
                return name_resource(error, _id(name))

    async def _take_away(self, name: str, *, apply: bool) -> Change:
        record = self._records.get(_id(name))
        if record is None:
            return Change(resource=_id(name))
        state, undo = _state(record), _undo(record, name)
        refusal = None if undo is None else self._policy.refusal(undo)
        if apply:
            await self._engine.let_go(name)
            if undo is None or refusal is not None:
                await self._engine.let_go(_undo_name(name))
            elif (pending := await self._undo_it(undo)) is not None:
                return Change(resource=_id(name), before=state, after=state, pending=pending)
            await self._records.forget(_id(name))
            self._known.pop(name, None)
            for names in (
                self._stale,
                self._needed,
                self._answered,
                self._unbegun,
                self._uncleared,
            ):
                names.discard(name)
        if undo is None or refusal is not None:
            words = FORGOTTEN if refusal is None else f"{FORGOTTEN}, since {refusal}"
            return Change(resource=_id(name), steps=(Did(words),), before=state)
        return Change(resource=_id(name), steps=(UNDONE,), before=state, diff=script(undo))

    async def _undo_it(self, undo: Job) -> NotReady | None:
        """Return None once *undo* has been run to its end. Raise `JobAttemptFailed` where it has failed."""
        name = _undo_name(undo.name)
        sight = await self._engine.look(name)
        if sight is None:
            await self._engine.begin(undo, name)
            return _waits(undo, self._engine.now(), age_s=0.0)
        if sight.end is None:
            return _waits(undo, sight.since, age_s=sight.age_s)
        await self._engine.let_go(name)
        if not has_succeeded(sight.end):
            raise failure(undo, sight.end)
        return None


def _plan_one(job: Job, state: JobState | None, *, is_needed: bool) -> Change:
    """Return what is due, in a dry run: no question is asked."""
    if job.unless and not is_needed:
        message = f"whether {job.name} is to be run is asked when it comes to that"
        unknown = UnknownUntilApplied(message, resource=job.id)
        return Change(resource=job.id, before=state, after=state, pending=unknown)
    return Change(resource=job.id, steps=(BEGUN,), before=state, diff=script(job))


def _waits(job: Job, since: str, *, age_s: float, failed: str | None = None) -> NotReady:
    last = f"; the last time it failed: {cut(failed, _FAILED_MOST)}" if failed else ""
    return NotReady(
        f"{job.name} runs since {since}{last}",
        resource=job.id,
        reason="Progressing",
        look_again_s=min(max(_LOOK_FIRST_S, age_s / _LOOKS_AN_AGE), _LOOK_LAST_S),
    )


def _undo(record: JsonRecord, name: str) -> Job | None:
    """Return the job that undoes what is recorded; None where nothing was run, or nothing undoes it."""
    if "undo" not in record or not record["ran"]:
        return None
    return Job.model_validate({**record["undo"], "name": name})


def _state(record: JsonRecord | None) -> JobState | None:
    if record is None:
        return None
    fields = {name: value for name, value in record.items() if name not in _OF_THE_RECORD}
    match record["state"]:
        case "begun":
            return InProgress(**fields)
        case "unneeded":
            return NotNeeded(**fields)
        case _:
            return Finished(**fields)


def _id(name: str) -> str:
    return resource_id(Job.resource_type, name)

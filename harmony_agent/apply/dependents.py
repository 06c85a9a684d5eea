"""Dependents: what another Score changes beneath a Score makes what was said of that Score old.

    a change is made for one Score -> every other one that uses, mounts or shares the thing is Progressing,
                                      and what is `after` that is Blocked
                                   -> it is looked at again -> its Outcome

Said before whoever made the change says that it is done, so that no report has both the new file and the
old Outcome of the service that reads it. Nothing of this is stored: a process that begins looks at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from harmony_agent.plan.run_result import RunResult
from harmony_agent.store.desired import Desired
from harmony_agent.store.status import StatusStore
from harmony_core.change import Change
from harmony_core.claims import path_of
from harmony_core.outcome import WILL_ROLL_BACK, Failure, Outcome, Running
from harmony_core.resources import Resource, resource_id

__all__ = ["Dependents"]

_BELOW = "below"
_STAYS = {WILL_ROLL_BACK, "RolledBack"}
"""How these end is decided by their own deadline, or by a new specification."""


class Dependents:
    """Knows what each Score stands on. *look* has the queue look at a Score now."""

    def __init__(self, statuses: StatusStore, desired: Desired) -> None:
        self.look: Callable[[str], None] = lambda _: None
        self._statuses = statuses
        self._desired = desired
        self._stands_on: dict[str, frozenset[str]] = {}
        self._overtaken: dict[str, str] = {}
        """What was changed beneath a Score since its last look began, by id."""

    def reset(self) -> None:
        """Forget which plans are out of date: everything is looked at again, and nothing is under way."""
        self._overtaken.clear()
        for gone in self._stands_on.keys() - self._desired.entries.keys():
            del self._stands_on[gone]

    def begin_look(self, score: str) -> bool:
        """Note that a look at *score* begins. Return whether what was planned for it before is out of
        date."""
        return self._overtaken.pop(score, None) is not None

    def note_result(self, result: RunResult) -> None:
        """Remember what the Score of *result* depends on."""
        if result.interpreted:
            uses = (each for wanted in result.wanted.values() for each in _uses(wanted))
            self._stands_on[result.entry.id] = frozenset([*result.referenced, *uses])

    def check(self, score: str, outcome: Outcome) -> Outcome:
        """Return *outcome*, unless something was changed beneath *score* after it was looked at."""
        changed = self._overtaken.get(score)
        if changed is None or isinstance(outcome, Running):
            return outcome
        return outcome if _stays(outcome) else _looks_again(changed)

    def note_change(self, score: str, change: Change) -> None:
        """Look again at every other Score that depends on what *change*, which was made for *score*, has
        changed."""
        names = set(_names_of(change.resource))
        for other, stands_on in list(self._stands_on.items()):
            if other != score and not names.isdisjoint(stands_on):
                self._overtake(other, change.resource)
        # They are looked at once this one has converged; a look that is under way comes too early.
        for follower in self._desired.followers.get(score, ()):
            self._overtaken.setdefault(follower, change.resource)

    def _overtake(self, score: str, resource: str) -> None:
        status = self._statuses.status_of(score)
        if status is None or score not in self._desired.entries or _stays(status.outcome):
            return
        self._overtaken[score] = resource
        self._statuses.enter_awaiting_look(score, _looks_again(resource))
        waiting = [(score, each) for each in self._desired.followers.get(score, ())]
        reached = {score}
        while waiting:
            awaited, follower = waiting.pop()
            if follower not in reached:
                reached.add(follower)
                blocked = Running(reason="Blocked", message=f"waits for {awaited}")
                self._statuses.enter_awaiting_look(follower, blocked)
                waiting += [(follower, each) for each in self._desired.followers.get(follower, ())]
        self.look(score)


def _looks_again(resource: str) -> Running:
    return Running(
        reason="Progressing", message=f"{resource} was changed beneath it; it is looked at again"
    )


def _stays(outcome: Outcome) -> bool:
    if not isinstance(outcome, Failure):
        return False
    return outcome.reason in _STAYS or outcome.error.code in _STAYS


def _uses(wanted: Resource) -> Iterator[str]:
    """Yield what *wanted* reads and does not make: files, and whatever is below a directory that it
    mounts."""
    for path in getattr(wanted, "uses", ()):
        yield resource_id("file", path)
    for mount in getattr(wanted, "mounts", ()):
        yield resource_id("file", mount.source)
        yield resource_id("directory", mount.source)
        yield resource_id(_BELOW, mount.source)


def _names_of(resource: str) -> Iterator[str]:
    """Yield *resource*, the file that it is a part of, and every directory that it is below."""
    yield resource
    if (path := path_of(resource)) is not None:
        yield resource_id("file", path)
        for parent in PurePosixPath(path).parents:
            yield resource_id(_BELOW, str(parent))

"""What the page shows of rollouts, and which of them have changed since when; as `Board` does of devices.

There are few classes: a change is told as all their lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import attrs

from harmony_control.rollout.all_classes import ClassStanding, Rollouts
from harmony_control.rollout.state import Look

from .rollout_page import RolloutLine, line_of_rollout

__all__ = ["RolloutBoard"]


class RolloutBoard:
    """How the rollouts of a fleet stand. Used by one event loop; nothing here waits."""

    def __init__(self) -> None:
        self.number = 0
        """Of the newest change."""
        self.only_looks: str = ""
        """Why no wave is opened from here; empty where waves are."""
        self.problem = "the rollouts are being read"
        """Why what is told of them may be old; empty where it is not."""
        self.looks: Mapping[str, Look] = {}
        """How each stood when all could be read last, by the name of its class."""
        self.read_at: datetime | None = None
        """When that was; None before it was."""
        self._classes: Mapping[str, tuple[ClassStanding, int]] = {}

    def take(self, rollouts: Rollouts) -> bool:
        """Take in the state of all. Return whether anything of it differs from before."""
        number = self.number + 1
        classes: dict[str, tuple[ClassStanding, int]] = {}
        for name, standing in rollouts.classes.items():
            before = self._classes.get(name)
            is_same = before is not None and _is_same(before[0], standing)
            classes[name] = standing, before[1] if before is not None and is_same else number
        is_news = (
            classes.keys() != self._classes.keys()
            or any(changed == number for _, changed in classes.values())
            or rollouts.only_looks != self.only_looks
        )
        self._classes, self.only_looks = classes, rollouts.only_looks
        if not any(each.problem and each.look is None for each in rollouts.classes.values()):
            self.looks = {
                name: each.look for name, each in rollouts.classes.items() if each.look is not None
            }
            self.read_at = datetime.now(UTC)
        if is_news:
            self.number = number
        return is_news

    def set_problem(self, problem: str) -> bool:
        """Set why what is shown may be old. Return whether that is another reason than before."""
        if problem == self.problem:
            return False
        self.problem = problem
        self.number += 1
        return True

    def find(self, name: str) -> tuple[ClassStanding, int] | None:
        """Return how that class stands, and the number of its last change; None for one that there is not."""
        return self._classes.get(name)

    def lines(self) -> list[RolloutLine]:
        """Return every class, by name."""
        return [line_of_rollout(*self._classes[each]) for each in sorted(self._classes)]

    def to_json(self) -> str:
        """Return all lines, as JSON on one line."""
        lines = [attrs.asdict(each) for each in self.lines()]
        told = {"problem": self.problem, "only_looks": self.only_looks, "lines": lines}
        return json.dumps(told, separators=(",", ":"), ensure_ascii=False)


def _is_same(one: ClassStanding, other: ClassStanding) -> bool:
    """Return whether nothing that is shown differs. When somebody was heard last is shown nowhere."""
    return _shown(one) == _shown(other)


def _shown(standing: ClassStanding) -> tuple[object, ...]:
    look = standing.look
    if look is None:
        return (standing.rule, standing.problem)
    judged = [
        (each.member.id, each.member.step, each.state, each.reason, each.until, each.ready_since)
        for each in look.progress.judged
    ]
    return (standing.rule, standing.problem, look.why, look.progress.gate, judged)

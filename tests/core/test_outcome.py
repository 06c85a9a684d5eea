"""Outcomes: four, and no fifth."""

from __future__ import annotations

import attrs
import pytest

from harmony_core import Change, Changes, Failure, Noop, Outcome, Running, Success, outcome_of
from harmony_core.outcome import ErrorInfo
from harmony_core.steps import Created

DONE = Changes.of([Change(resource="file:/etc/motd", steps=(Created(),))])
QUIET = Changes.of([Change(resource="file:/etc/issue")])


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ((), Noop()),
        ((Changes(),), Noop()),
        ((QUIET,), Noop()),
        ((DONE,), Success()),
        ((QUIET, DONE, QUIET), Success()),
    ],
)
def test_any_change_is_success_and_none_is_noop(
    changes: tuple[Changes, ...], outcome: Outcome
) -> None:
    assert outcome_of(*changes) == outcome


def test_changes_keep_their_order_when_added() -> None:
    assert [change.resource for change in QUIET + DONE] == ["file:/etc/issue", "file:/etc/motd"]
    assert (QUIET + DONE).changed


def test_a_change_without_actions_changed_nothing() -> None:
    assert not Change(resource="file:/etc/motd").changed


@pytest.mark.parametrize(
    "outcome",
    [
        Success(),
        Noop(),
        Running(reason="Blocked"),
        Failure(error=ErrorInfo(code="Boom", message="it went")),
    ],
)
def test_an_outcome_cannot_be_altered(outcome: Outcome) -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(outcome, "message", "better")  # noqa: B010 - a type checker would refuse it too

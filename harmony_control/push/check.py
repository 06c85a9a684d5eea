"""What a device would refuse, told before it is pushed: by what the device itself says that it can do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from harmony_control.bus.reports import Report
from harmony_control.bus.requests import Foreseen
from harmony_core.errors import MissingCapability, PolicyRefused, UnknownKind, UnsupportedVersion
from harmony_core.score import AnyScore
from harmony_core.wire.actual_state import ActualState

from .entries import AnyEntry

__all__ = ["check", "doubts", "find_unable", "refused_by_policy"]

_PROGRAMS = {"__main__", "<run_path>"}
"""What Python calls a program that is no module, and a Score file that is run."""


def check(state: ActualState, entries: Mapping[str, AnyEntry]) -> None:
    """Raise `UnknownKind`, `UnsupportedVersion` or `MissingCapability` for what the device would refuse."""
    for score_id, entry in entries.items():
        _check_kind(state, score_id, entry, ", or push with --force")
        _check_capabilities(state, score_id, entry, "push it to another device, or with --force")


def find_unable(
    state: ActualState, entries: Mapping[str, AnyEntry]
) -> UnknownKind | UnsupportedVersion | MissingCapability | None:
    """Return the first reason why the device could not follow a class with *entries*; None where it could."""
    try:
        for score_id, entry in entries.items():
            _check_kind(state, score_id, entry, "")
            remedy = f"leave that out there (without: [{score_id}]), or give it other labels"
            _check_capabilities(state, score_id, entry, remedy)
    except (UnknownKind, UnsupportedVersion, MissingCapability) as error:
        return error
    return None


def refused_by_policy(found: Iterable[Foreseen], pushed: Collection[str]) -> list[PolicyRefused]:
    """Return an error for each of the Scores *pushed* that, as the device answered, its policy forbids."""
    return [
        PolicyRefused(f"{each.planned.score}: {error.message}", resource=error.resource)
        for each in found
        if each.planned.score in pushed
        and (error := each.planned.error) is not None
        and error.code == PolicyRefused.code
    ]


def doubts(agent_id: str, report: Report | None, enrolled: Collection[str]) -> tuple[str, ...]:
    """Return in words why the abilities of the device cannot be checked; empty where they can be."""
    if report is None:
        if enrolled and agent_id not in enrolled:
            there = ", ".join(sorted(enrolled))
            remedy = f"no device can receive this before `harmony enroll root@{agent_id}`"
            return (f"{agent_id} is not enrolled here ({there} are); {remedy}",)
        return (f"{agent_id} was never heard of; what it can do is checked only when it appears",)
    if report.state is None:
        return (f"what {agent_id} reports cannot be read, so nothing is checked: {report.problem}",)
    return ()


def _check_kind(state: ActualState, score_id: str, entry: AnyEntry, otherwise: str) -> None:
    kind, version = entry.score.kind, entry.score.version
    versions = state.kinds.get(kind)
    if not versions:
        raise UnknownKind(
            f"{score_id}: {state.agent_id} does not know the kind {kind}; {_remedy(entry.score)}{otherwise}"
        )
    if version not in versions:
        known = ", ".join(map(str, versions))
        raise UnsupportedVersion(
            f"{score_id}: {state.agent_id} knows {kind} in version {known}, not {version}; "
            f"update the package there{otherwise}"
        )


def _remedy(score: AnyScore) -> str:
    cls = type(score)
    if cls.__module__ not in _PROGRAMS:
        return "install the package that provides it there"
    file = Path(cls.interpret.__code__.co_filename).name
    return (
        f"it is defined in {file} alone, and devices have their kinds from packages: make one of it, as "
        "docs/writing-a-score.md shows, and install it there"
    )


def _check_capabilities(state: ActualState, score_id: str, entry: AnyEntry, remedy: str) -> None:
    for name in sorted(entry.score.requires):
        offered = state.capabilities.get(name)
        if offered is None or not offered.offered:
            why = f": {offered.reason}" if offered is not None and offered.reason else ""
            raise MissingCapability(
                f"{score_id} needs {name}, which {state.agent_id} does not offer{why}; {remedy}"
            )

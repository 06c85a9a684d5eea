"""What is wrong with the device beside its Scores. A problem is set, and set to nothing when it is over.

set_…(…) -> another than before? -> a report is due -> `.conditions` says it in words
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from harmony_core.errors import LedgerUnusable, ManifestRejected
from harmony_core.wire.actual_state import CapabilityState

from .desired import Desired
from .report_due import AT_ONCE_S, ReportDue
from .trust import Trust

__all__ = ["DeviceHealth", "DeviceProblems"]

_NOT_KNOWN = (
    "what was made before is not known to be Harmony's, and is left where no Score wants it"
)


@attrs.frozen(kw_only=True)
class DeviceProblems:
    """What is wrong with the device beside its Scores; empty or 0 for nothing."""

    rejected: str = ""
    """Why what is in the bucket cannot be trusted or read."""
    written_over: str = ""
    """By whom else this device's report was written."""
    is_copied: bool = False
    """Whether that one has this device's own key."""
    unwritten: str = ""
    """Why nothing can be written down."""
    internal: Mapping[str, str] = MappingProxyType({})
    """Which parts of the agent have raised what nobody expected, and what that was."""
    floor_lost: str = ""
    """Why it is doubtful what was accepted here last."""
    floor_unkept: str = ""
    """Why that cannot be written down."""
    lost: str = ""
    """Why it is not known what was made here before."""
    forgotten: str = ""
    """Why it is known that something was made here before, and not what."""
    missed: str = ""
    """Why what is written down would be lost."""
    root_version: int = 0
    """Which root document counts; 0 for none."""
    root_sha256: str = ""
    """Of that document; empty for none."""
    root_rejected: str = ""
    """Why the next one, which is there, does not."""
    root_expired: bool = False
    """Whether the one that counts is past its own end: nothing new is taken in."""
    index_rejected: str = ""
    """Why the fleet index that stands there, and is newer, does not count."""
    class_refused: str = ""
    """Which classes cannot be followed as they are signed, and why."""
    removals_held: int = 0
    """How many resources wait for leave to be removed."""
    capabilities: Mapping[str, CapabilityState] = MappingProxyType({})
    """What the device offers, and whether it answers now."""
    repeat_offenders: Mapping[str, int] = MappingProxyType({})
    """The Scores that somebody keeps changing, and how often each was put right in a row."""
    otherwise: Mapping[str, str] = MappingProxyType({})
    """What has drifted and is left so, by Score."""
    stale: bool = False
    """Whether the manifest in force is past its own end."""
    reboot_reason: str = ""
    """Why a boot that is awaited has not come yet, in one word; empty while none is awaited."""
    reboot_words: str = ""
    """By what it is awaited, and why it has not come yet."""


class DeviceHealth:
    """Knows the device's problems, and has them reported when they change."""

    def __init__(self, due: ReportDue) -> None:
        self._due = due
        self._problems = DeviceProblems()

    @property
    def problems(self) -> DeviceProblems:
        return self._problems

    def set_drifted(self, score: str, resource: str | None) -> bool:
        """Set whether *resource* of *score* has drifted and is left so; None: it is not so.

        Return whether that is news.
        """
        otherwise = dict(self._problems.otherwise)
        if otherwise.pop(score, None) == resource:
            return False
        if resource is not None:
            otherwise[score] = resource
        self._update(otherwise=otherwise)
        return True

    def set_repeat_offenders(self, repeat_offenders: Mapping[str, int]) -> None:
        """Set which Scores somebody keeps changing, and how often each was repaired in a row."""
        self._update(repeat_offenders=repeat_offenders)

    def set_pending_removals(self, count: int) -> None:
        """Set how many resources wait for approval to be removed; 0: none."""
        self._update(removals_held=count)

    def set_rejected(self, error: ManifestRejected | None) -> None:
        """Set why the content of the bucket is refused; None: it is not refused any more.

        The last good manifest stays effective.
        """
        self._update(rejected=f"{error.code}: {error.message}" if error else "")

    def set_class_problem(self, index: str, refused: str) -> None:
        """Set why the newest fleet *index* does not count, and which classes are *refused*; "": it counts,
        and none is refused."""
        self._update(index_rejected=index, class_refused=refused)

    @property
    def has_rejected(self) -> bool:
        """Return whether what was last fetched is refused."""
        return bool(self._problems.rejected)

    def set_unwritable(self, error: LedgerUnusable | None) -> bool:
        """Set why nothing can be made durable, and so nothing new can begin; None: it can.

        Return whether that is news.
        """
        before = self._problems.unwritten
        self._update(unwritten=error.message if error else "")
        return before != self._problems.unwritten

    def set_internal_error(self, part: str, why: str) -> None:
        """Set which unexpected error *part* of the agent has raised that lasts; "": none any more."""
        internal = {**self._problems.internal, part: why}
        self._update(internal={name: words for name, words in internal.items() if words})

    def set_ledger_lost(self, kept: Path | None) -> None:
        """Set where the ledger is kept that could not be read; None: there is none."""
        why = (
            f"what had been noted of this device was damaged, and is kept as {kept}: {_NOT_KNOWN}; once seen "
            "to, delete that file"
        )
        self._update(lost=why if kept else "")

    def set_forgotten(self, generation: int) -> None:
        """Record that *generation* was effective here, and nothing is known of it."""
        why = (
            f"generation {generation} was in force here, and the agent's database knows of none: it was "
            f"deleted while the agent was stopped, or the device was set up anew; {_NOT_KNOWN}; once a newer "
            "one is in force, `systemctl restart harmony-agent` ends this message"
        )
        self._update(forgotten=why)

    def set_floor_problem(self, desired: Desired) -> None:
        """Set why it is doubtful, or cannot be stored, what *desired* accepted last; if it is so."""
        self._update(floor_lost=desired.floor_lost, floor_unkept=desired.floor_unkept)

    def set_trust_problem(self, trust: Trust) -> None:
        """Set which root document counts, and what is wrong with it or the next one, if anything is."""
        self._update(
            root_version=trust.version,
            root_sha256=trust.sha256,
            root_rejected=trust.rejected or trust.unkept,
            root_expired=trust.is_over(datetime.now(UTC)),
        )

    def set_missed(self, why: str) -> None:
        """Set why the files with the agent's records are gone and cannot be written again; "": they are
        there."""
        self._update(missed=why)

    def set_written_over(self, *, is_copied: bool) -> None:
        """Record that somebody else has written this device's report: a copy of it, or else a stranger."""
        if is_copied or self._problems.is_copied:
            why = (
                "another device says that it is this one, and has this device's keys: its card was copied, "
                "or it runs twice. If the other one is not yours, cut it off by giving this one new keys: "
                "harmony enroll root@HOST --replace"
            )
        else:
            why = (
                "somebody without this device's key has written its report on the message server; `harmony` "
                "believes no such report. Find out who may write there"
            )
        self._update(
            written_over=f"{why}; `systemctl restart harmony-agent` ends this message",
            is_copied=is_copied or self._problems.is_copied,
        )

    def set_rewritten(self, path: Path) -> None:
        """Record that the agent's records were deleted at *path*, and are written again, from memory."""
        why = (
            f"{path} was deleted while the agent ran: it is written anew, and nothing that was noted is "
            "lost; what stood on the device before Harmony, and was kept beside that file, may be. Find out "
            "by whom; `systemctl restart harmony-agent` ends this message"
        )
        self._update(lost=why)

    def set_stale(self, stale: bool) -> None:
        """Set whether the effective manifest has expired. It stays effective."""
        self._update(stale=stale)

    def set_reboot_required(self, reason: str, words: str) -> None:
        """Set why the device must be rebooted, and why it was not yet; "": it need not be."""
        self._update(reboot_reason=reason, reboot_words=words)

    def set_capabilities(self, capabilities: Mapping[str, CapabilityState]) -> None:
        """Set what the device offers, and whether it answers now."""
        self._update(capabilities=capabilities)

    def _update(self, **fields: Any) -> None:
        problems = attrs.evolve(self._problems, **fields)
        if problems != self._problems:
            self._problems = problems
            self._due.mark(AT_ONCE_S)

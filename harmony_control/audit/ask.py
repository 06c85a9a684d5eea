"""Verify a device's record of changes: ask for what is needed, as far as it can be had, and compare it.

    its signed report, the heads that were seen here, the record itself -> `verify`

A device that does not answer is no reason to say nothing: what it has told of itself before must agree, too.
"""

from __future__ import annotations

import attrs

from harmony_control.bus.devices import refuse_unknown
from harmony_control.bus.reports import Report, Reports
from harmony_control.bus.requests import Asking
from harmony_core.errors import HarmonyError, NoAnswer, RequestError, StoreError, Unverified

from .verify import AuditResult, ReportedHead, compare_heads, verify_chain

__all__ = ["audit"]

_TRIES = 2


async def audit(asking: Asking) -> AuditResult:
    """Return whether the record of the device is whole, and is the one that was seen of it.

    What could not be checked is in the result. Raise what `Asking` raises if nothing can be asked at all.
    """
    agent_id = asking.agent_id
    await refuse_unknown(asking.home, asking.client, agent_id)
    reports = Reports(asking.home, asking.client)
    # What was seen before the report, both before the record: what is noted meanwhile is in that.
    seen = await reports.read_heads(agent_id)
    report = await reports.read_report(agent_id)
    reported = _reported(report)
    unchecked = _why_unreported(agent_id, report)
    result = compare_heads(agent_id, reported, seen)
    try:
        for _ in range(_TRIES):
            # In between, the device may have dropped what came next: that is not so twice.
            events = await asking.audit()
            result = verify_chain(agent_id, events, reported, seen)
            if not result.faults:
                break
    except (StoreError, RequestError) as error:
        unchecked.append(error)
    return attrs.evolve(result, unchecked=tuple(unchecked))


def _reported(report: Report | None) -> ReportedHead | None:
    if report is None or report.state is None or report.state.audit is None:
        return None
    return ReportedHead(head=report.state.audit, at=report.at)


def _why_unreported(agent_id: str, report: Report | None) -> list[HarmonyError]:
    if report is None:
        return [NoAnswer(f"{agent_id} has never reported; has its agent been started?")]
    if report.state is None:
        return [Unverified(f"the report of {agent_id} is not believed: {report.problem}")]
    if report.state.audit is None:
        return [
            NoAnswer(
                f"the report of {agent_id} says nothing of its record: it cannot read its database, or its "
                "agent is an older one; `harmony status` shows which"
            )
        ]
    return []

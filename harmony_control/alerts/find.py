"""What is wrong with a fleet, in groups. Pure: by what is known of it, and by the time.

A group is what is told in one breath: the devices of a site that are offline, the rollout of a class. It is
the same group for as long as anything of it is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs

from harmony_control.fleet_view.row import DeviceRow

if TYPE_CHECKING:
    from harmony_control.rollout.state import Look
    from harmony_core.wire.root import Root

__all__ = ["Group", "Kind", "Problem", "find_problems"]

Kind: TypeAlias = Literal[
    "DevicesOffline", "WorkloadsError", "NotWhoTheySay", "RolloutAborted", "RootExpires"
]
_IN_ANOTHERS_NAME = frozenset({"DeviceCopied", "ForeignReport"})


@attrs.frozen(order=True)
class Group:
    """What is told together."""

    kind: Kind
    of: str
    """The value of the label, ``class/generation``, or the root document's version; empty for no label."""


@attrs.frozen(kw_only=True)
class Problem:
    """What is wrong with a group."""

    devices: Mapping[str, str]
    """Why, by id; empty where it is not about devices."""
    text: str = ""
    """In words, where it is not about devices."""

    @property
    def count(self) -> int:
        """How many devices are concerned, or 1."""
        return max(1, len(self.devices))


def find_problems(
    rows: Iterable[DeviceRow],
    rollouts: Mapping[str, Look],
    root: Root | None,
    *,
    group_by: str,
    root_expires: timedelta,
    now: datetime,
) -> dict[Group, Problem]:
    """Return what is wrong. Devices are grouped by the value of their label *group_by*."""
    devices: dict[Group, dict[str, str]] = {}
    for row in rows:
        if (kind := _kind_of(row)) is not None:
            group = Group(kind, row.labels.get(group_by, ""))
            devices.setdefault(group, {})[row.id] = row.reason
    found = {group: Problem(devices=each) for group, each in devices.items()}
    for name, look in rollouts.items():
        gate = look.progress.gate
        if gate.state == "aborted":
            group = Group("RolloutAborted", f"{name}/{gate.generation}")
            found[group] = Problem(devices={}, text=gate.reason)
    if root is not None and root.expires_at is not None and root.expires_at - now < root_expires:
        found[Group("RootExpires", str(root.version))] = Problem(
            devices={}, text=f"it expires at {root.expires_at:%F %T} UTC"
        )
    return found


def _kind_of(row: DeviceRow) -> Kind | None:
    if row.device == "Unverified" or row.degraded in _IN_ANOTHERS_NAME:
        return "NotWhoTheySay"
    if row.device == "Offline":
        return "DevicesOffline"
    return "WorkloadsError" if row.workloads == "Error" else None

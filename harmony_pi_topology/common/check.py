"""After the deed: what was wanted, held against what a look found. Shared by every reconciler.

    wanted, looked at -> each field alike -> the look is the Change's `after`
                      -> one differs      -> DidNotStick, naming the field, what was wanted and what was found

Nothing here looks: a reconciler asks who knows (the kernel, systemd, podman), and never what it wrote itself.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

import attrs

from harmony_core.errors import CapabilityError, DidNotStick
from harmony_core.resources import State

__all__ = ["did_it_stick", "name_as_desired"]

StateT = TypeVar("StateT", bound=State)


def name_as_desired(error: CapabilityError, *, owner: str, group: str) -> CapabilityError:
    """Return *error*; where it tells the number of a user or group, with the name in its place.

    *owner* and *group* are as in the Score: its reader knows ``daemon``, not 1.
    """
    if not isinstance(error, DidNotStick) or error.field not in {"owner", "group"}:
        return error
    return DidNotStick(
        error.what,
        field=error.field,
        wanted=owner if error.field == "owner" else group,
        found=error.found,
        remedy=error.remedy,
        resource=error.resource,
    )


def did_it_stick(
    what: str,
    wanted: StateT,
    found: State | None,
    *,
    remedy: str,
    fields: Collection[str] | None = None,
    resource: str | None = None,
) -> StateT:
    """Return *found*, which is as *wanted*; raise `DidNotStick` where it is not.

    *what* is the thing in words, such as a path or a unit's name, and *remedy* says what to do. Compare
    *fields*, or all fields of *wanted*. Nothing at all, or a state of another class, differs in ``state``.
    """
    if found is None or type(found) is not type(wanted):
        raise DidNotStick(
            what,
            field="state",
            wanted=wanted.state,
            found="nothing" if found is None else found.state,
            remedy=remedy,
            resource=resource,
        )
    for each in attrs.fields(type(wanted)):
        old, new = getattr(wanted, each.name), getattr(found, each.name)
        if old != new and (fields is None or each.name in fields):
            raise DidNotStick(
                what,
                field=each.name,
                wanted=str(old),
                found=str(new),
                remedy=remedy,
                resource=resource,
            )
    return found

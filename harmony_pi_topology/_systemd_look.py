"""One look at one unit, over D-Bus."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from sdbus import SdBus, encode_object_path

from harmony_core.times import rfc3339
from harmony_core.unit_records import FoundUnit

from ._dbus import SYSTEMD, Service, Unit

__all__ = ["look"]

_UNITS_PATH = "/org/freedesktop/systemd1/unit"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def look(bus: SdBus, name: str, enablement: str) -> FoundUnit | None:
    """What systemd says of the unit *name* now; None when it changed meanwhile.

    A dozen properties are asked for one by one, which costs systemd less than telling all the hundreds
    that there are. It answers in order, so those asked first and last show whether all belong together.
    """
    unit = Unit.new_proxy(SYSTEMD, encode_object_path(_UNITS_PATH, name), bus)
    identity, marks, times, of_service, again = await asyncio.gather(
        asyncio.gather(unit.invocation_id, unit.active_state, unit.sub_state),
        asyncio.gather(
            unit.load_state, unit.load_error, unit.job, unit.condition_result, unit.drop_in_paths
        ),
        asyncio.gather(
            unit.active_enter_timestamp,
            unit.active_enter_timestamp_monotonic,
            unit.active_exit_timestamp_monotonic,
            unit.inactive_exit_timestamp_monotonic,
        ),
        _of_service(bus, name),
        asyncio.gather(unit.invocation_id, unit.active_state, unit.sub_state),
    )
    if identity != again:
        return None
    invocation, active, sub = identity
    load, (_, problem), (job, _), conditions_met, drop_ins = marks
    since_us, *monotonic_us = times
    up_since_s, up_until_s, left_inactive_s = (each / 1e6 for each in monotonic_us)
    kind, result, restarts, exit_status = of_service
    return FoundUnit(
        load=load,
        problem=problem,
        active=active,
        sub=sub,
        result=result or ("failed" if active == "failed" else "success"),
        exit_status=exit_status,
        conditions_met=conditions_met,
        oneshot=kind == "oneshot",
        enablement=enablement,
        has_job=job != 0,
        invocation=invocation.hex(),
        restarts=restarts,
        left_inactive_s=left_inactive_s,
        up_since_s=up_since_s,
        up_until_s=up_until_s,
        since=rfc3339(_EPOCH + timedelta(microseconds=since_us)),
        drop_ins=tuple(path for path in drop_ins if _is_local(path, name)),
    )


def _is_local(drop_in: str, name: str) -> bool:
    """Whether somebody has put it on this device, and for no more than *name*, its template or family."""
    of_its_type = f"/{name.rpartition('.')[2]}.d/"
    return not drop_in.startswith(("/usr/lib/", "/lib/")) and of_its_type not in drop_in


def _of_service(bus: SdBus, name: str) -> asyncio.Future[tuple[str, str, int, int]]:
    """Type, Result, NRestarts and ExecMainStatus; asked for at once, before this returns."""
    if not name.endswith(".service"):
        nothing: asyncio.Future[tuple[str, str, int, int]]
        nothing = asyncio.get_running_loop().create_future()
        nothing.set_result(("", "", 0, 0))
        return nothing
    service = Service.new_proxy(SYSTEMD, encode_object_path(_UNITS_PATH, name), bus)
    return asyncio.gather(
        service.type_, service.result, service.n_restarts, service.exec_main_status
    )

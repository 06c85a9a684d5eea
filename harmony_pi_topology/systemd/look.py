"""One look at one unit, over D-Bus."""

from __future__ import annotations

import asyncio
import posixpath
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import attrs
from sdbus import SdBus

from harmony_core.wire.times import read_microseconds, rfc3339
from harmony_pi_topology.common.dbus import SYSTEMD, Manager, Service, Timer, Unit, encode_unit_path

from .records import FoundUnit

__all__ = [
    "HAVE_OTHERS",
    "FoundJob",
    "look",
    "look_at_credentials",
    "look_at_job",
    "look_at_others",
    "look_at_slice",
]

HAVE_OTHERS = (".slice", ".socket", ".path", ".timer")
"""How the names of units end that hold others, or start them."""

_DEAD = frozenset({"inactive", "failed"})

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class FoundJob:
    """What systemd says of a transient service. Times in microseconds, 0 for never."""

    active: str
    sub: str
    result: str
    exit_code: int
    started_us: int
    ended_us: int
    age_s: float

    @property
    def has_ended(self) -> bool:
        # Inactive is what has not been started yet: what has ended stays as it was then.
        return self.sub == "exited" or self.active == "failed"


async def look_at_job(bus: SdBus, name: str) -> FoundJob | None:
    """Return what systemd says of the transient service *name*; None when there is none."""
    path = encode_unit_path(name)
    unit = Unit.new_proxy(SYSTEMD, path, bus)
    service = Service.new_proxy(SYSTEMD, path, bus)
    (load, active, sub), (result, code), times = await asyncio.gather(
        asyncio.gather(unit.load_state, unit.active_state, unit.sub_state),
        asyncio.gather(service.result, service.exec_main_status),
        asyncio.gather(
            service.exec_main_start_timestamp,
            service.exec_main_start_timestamp_monotonic,
            service.exec_main_exit_timestamp,
        ),
    )
    if load != "loaded":
        return None
    started_us, started_monotonic_us, ended_us = times
    now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    return FoundJob(
        active=active,
        sub=sub,
        result=result,
        exit_code=code,
        started_us=started_us,
        ended_us=ended_us or started_us,
        age_s=max(0, now_us - (started_monotonic_us or now_us)) / 1e6,
    )


async def look(
    bus: SdBus, manager: Manager, name: str, enablement: Awaitable[str]
) -> FoundUnit | None:
    """Return what systemd says of the unit *name* now; None when it changed meanwhile.

    *enablement* is asked for along with the rest.

    Ask for some twenty properties one by one, which costs systemd less than all of the hundreds. systemd
    answers in order, so those asked first and last show whether all belong together; when it last read unit
    files is asked last: a reload in between counts as one since the unit began.
    """
    unit = Unit.new_proxy(SYSTEMD, encode_unit_path(name), bus)
    (
        enabled,
        identity,
        (marks, files),
        times,
        of_its_type,
        (again, read_at_us),
    ) = await asyncio.gather(
        enablement,
        asyncio.gather(unit.invocation_id, unit.active_state, unit.sub_state),
        asyncio.gather(
            asyncio.gather(
                unit.load_state,
                unit.load_error,
                unit.job,
                unit.condition_result,
                unit.freezer_state,
            ),
            asyncio.gather(
                unit.id, unit.names, unit.fragment_path, unit.drop_in_paths, unit.need_daemon_reload
            ),
        ),
        asyncio.gather(
            unit.inactive_exit_timestamp,
            unit.active_enter_timestamp,
            unit.active_enter_timestamp_monotonic,
            unit.active_exit_timestamp_monotonic,
            unit.inactive_exit_timestamp_monotonic,
        ),
        _of_its_type(bus, name),
        asyncio.gather(
            asyncio.gather(unit.invocation_id, unit.active_state, unit.sub_state),
            manager.units_load_timestamp_monotonic,
        ),
    )
    if identity != again:
        return None
    invocation, active, sub = identity
    load, (_, problem), (job, _), conditions_met, freezer = marks
    unit_id, names, fragment, drop_ins, is_outdated = files
    began_us, since_us, *monotonic_us = times
    up_since_s, up_until_s, left_inactive_s = (each / 1e6 for each in monotonic_us)
    kind, result, restarts, exit_status, last_elapsed_us = of_its_type
    if name.endswith(".slice") and active == "inactive" and not (fragment or drop_ins):
        load = "not-found"  # systemd can load a slice of any name
    return FoundUnit(
        load=load,
        problem=problem,
        active=active,
        sub=sub,
        result=result or ("failed" if active == "failed" else "success"),
        exit_status=exit_status,
        conditions_met=conditions_met,
        oneshot=kind == "oneshot",
        enablement=enabled,
        has_job=job != 0,
        invocation=invocation.hex(),
        restarts=restarts,
        left_inactive_s=left_inactive_s,
        up_since_s=up_since_s,
        up_until_s=up_until_s,
        since=rfc3339(read_microseconds(since_us)),
        drop_ins=tuple(path for path in drop_ins if _is_local(path, name)),
        loaded_drop_ins=tuple(drop_ins),
        fragment=fragment,
        is_outdated=is_outdated,
        was_read_before=read_at_us / 1e6 < left_inactive_s,
        began_at_s=began_us / 1e6,
        unit_id=unit_id,
        names=tuple(names),
        never_elapses=sub == "elapsed" and last_elapsed_us == 0,
        frozen=freezer not in {"", "running"},
    )


async def look_at_others(
    bus: SdBus, found: FoundUnit, find_file: Callable[[str], Awaitable[str]]
) -> FoundUnit:
    """Return *found*, which is one of those that `HAVE_OTHERS`, with what it starts, or what is in it.

    *find_file* returns how a template is enabled; nothing, where it has no file.
    """
    unit = Unit.new_proxy(SYSTEMD, encode_unit_path(found.unit_id), bus)
    if found.is_slice:
        states = await _ask_states(bus, await unit.slice_of)
        members = tuple(name for name, (_, active) in states.items() if active not in _DEAD)
        return attrs.evolve(found, members=members)
    states = await _ask_states(bus, await unit.triggers)
    lacking = [name for name, (load, _) in states.items() if load != "loaded"]
    if not found.unit_id.endswith(".socket"):
        return attrs.evolve(found, lacking=tuple(lacking))
    # With Accept=yes, it starts one of a template for each connection: none of them is in its way.
    connection = f"{found.unit_id.rpartition('.')[0]}@"
    if not states and not await find_file(template := f"{connection}.service"):
        lacking.append(template)
    running = [name for name, (_, active) in states.items() if active not in _DEAD]
    services = tuple(name for name in running if not name.startswith(connection))
    return attrs.evolve(found, lacking=tuple(lacking), running_services=services)


async def _ask_states(bus: SdBus, names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return how each of *names* is loaded, and whether it is active. One by one, since they may be many."""
    units = [Unit.new_proxy(SYSTEMD, encode_unit_path(name), bus) for name in names]
    loads = [await each.load_state for each in units]
    states = [await each.active_state for each in units]
    return dict(zip(names, zip(loads, states, strict=True), strict=True))


async def look_at_credentials(bus: SdBus, name: str) -> dict[str, str]:
    """Return the file of each credential that the service *name* is loaded with, by name."""
    service = Service.new_proxy(SYSTEMD, encode_unit_path(name), bus)
    return dict(await service.load_credential)


async def look_at_slice(bus: SdBus, name: str) -> str:
    """Return the slice in which the service *name* runs; where it does not, in which it would."""
    service = Service.new_proxy(SYSTEMD, encode_unit_path(name), bus)
    group = await service.control_group
    return posixpath.basename(posixpath.dirname(group)) if group else await service.slice


def _is_local(drop_in: str, name: str) -> bool:
    """Return whether somebody has put it on this device, and only for *name*, its template or family."""
    of_its_type = f"/{name.rpartition('.')[2]}.d/"
    return not drop_in.startswith(("/usr/lib/", "/lib/")) and of_its_type not in drop_in


def _of_its_type(bus: SdBus, name: str) -> asyncio.Future[tuple[str, str, int, int, int]]:
    """Return Type, Result, NRestarts and ExecMainStatus of a service, LastTriggerUSec of a timer. Send the
    question before this returns."""
    path = encode_unit_path(name)
    if name.endswith(".service"):
        service = Service.new_proxy(SYSTEMD, path, bus)
        return asyncio.gather(
            service.type_,
            service.result,
            service.n_restarts,
            service.exec_main_status,
            _answer(0),
        )
    last_elapsed = (
        Timer.new_proxy(SYSTEMD, path, bus).last_trigger_us
        if name.endswith(".timer")
        else _answer(0)
    )
    return asyncio.gather(_answer(""), _answer(""), _answer(0), _answer(0), last_elapsed)


async def _answer(value: T) -> T:
    return value

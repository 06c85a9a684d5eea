"""The parts of the contract of units: a reconciler, somebody else on its device, what services run."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.reconciler import Reconciler
from harmony_core.resources import (
    SystemdUnit,
    UnitState,
)
from harmony_core.steps import Step

from .fake_systemd import ServiceProgram

__all__ = ["SERVICE_PROGRAMS", "UnitBystander", "UnitContract", "UnitsUnderTest", "require_change"]

PORT = 18081
"""A port of the device that nothing listens on."""

SLEEP = "/bin/sleep infinity"
SLEEP_TOO = "/bin/sleep 86400"
TRUE = "/bin/true"
BOOM = "/bin/sh -c 'echo boom; echo bang >&2; exit 3'"
DIE_SOON = "/bin/sh -c 'echo alive; sleep 0.2; exit 3'"
MISSING = "/nonexistent/program"
START_SLOWLY = "/bin/sh -c 'sleep 2; systemd-notify --ready; exec sleep infinity'"
RUN_SLOWLY = "/bin/sleep 2"
SERVE = f"/bin/busybox httpd -f -p {PORT} -h /etc"
SERVE_LATE = f"/bin/sh -c 'sleep 2; exec /bin/busybox httpd -f -p {PORT} -h /etc'"
SERVE_NOTHING = "/bin/sh -c 'echo the database is away; exec sleep infinity'"

SERVICE_PROGRAMS: Mapping[str, ServiceProgram] = MappingProxyType(
    {
        SLEEP: ServiceProgram(),
        SLEEP_TOO: ServiceProgram(),
        TRUE: ServiceProgram(exit_code=0),
        BOOM: ServiceProgram(exit_code=3, log=("boom", "bang")),
        DIE_SOON: ServiceProgram(exit_code=3, ends_after_s=0.2, log=("alive",)),
        MISSING: ServiceProgram(exit_code=203),
        START_SLOWLY: ServiceProgram(starts_in_s=2.0),
        RUN_SLOWLY: ServiceProgram(exit_code=0, ends_after_s=2.0),
        SERVE: ServiceProgram(),
        SERVE_LATE: ServiceProgram(ready_after_s=2.0),
        SERVE_NOTHING: ServiceProgram(ready_after_s=math.inf, log=("the database is away",)),
    }
)
"""The commands above, as `FakeSystemd.programs`."""

_LOOKS = 100
MADE = ("created its file", "enabled", "started")


class UnitBystander(Protocol):
    """Somebody else who works on the same device."""

    async def pass_time(self, seconds: float) -> None:
        """Wait for *seconds* of the units' time."""

    async def install(self, name: str, content: str) -> None:
        """Install a unit below /usr/lib, as a package would."""

    async def reload(self) -> None:
        """Have systemd read its files anew."""

    async def start(self, name: str) -> None: ...

    async def stop(self, name: str) -> None: ...

    async def restart(self, name: str) -> None: ...

    async def kill(self, name: str) -> None:
        """Kill its processes, and wait until systemd has noticed."""

    async def freeze(self, name: str) -> None:
        """Let its processes stand still."""

    async def thaw(self, name: str) -> None:
        """Let them go on."""

    async def enable(self, name: str) -> None: ...

    async def disable(self, name: str) -> None: ...

    async def mask(self, name: str) -> None:
        """Let nobody start it; the mask takes the place of its file in /etc, if there is one."""

    async def is_enabled(self, name: str) -> bool: ...

    async def identity(self, name: str) -> str:
        """Return which start of the unit runs, or ran last; empty when it never did."""
        ...

    async def command(self, name: str) -> str:
        """Return the command that the unit runs now, as its unit file says; empty when it does not run."""
        ...

    async def reloads(self) -> str:
        """Return a text that differs after each time that systemd has read its files."""
        ...

    def write(self, path: str, content: bytes) -> None:
        """Write a file in place."""

    def delete(self, path: str) -> None:
        """Take a file away."""

    def read(self, path: str) -> bytes | None:
        """Return the file's content; None when there is none."""
        ...


class NamedUnits(Reconciler[SystemdUnit, UnitState], Protocol):
    """A reconciler that also says under which names a unit is known."""

    async def identities(self, resource: SystemdUnit) -> frozenset[str]:
        """Return all names of *resource*, and the path of its file, if that is ours."""
        ...


@attrs.frozen(kw_only=True)
class UnitsUnderTest:
    """A reconciler of units, and somebody else on the same device."""

    units: NamedUnits
    bystander: UnitBystander
    reopen: Callable[[], Reconciler[SystemdUnit, UnitState]]
    """Makes another reconciler with the same records, as an agent does that starts again."""

    async def look(self, unit: SystemdUnit) -> Change:
        """Converge once. Raise the error that this answers."""
        (result,) = await self.units.converge([unit], apply=True)
        return require_change(result)

    async def plan_one(self, unit: SystemdUnit) -> Change:
        (result,) = await self.units.converge([unit], apply=False)
        return require_change(result)

    async def apply_one(self, unit: SystemdUnit) -> Change:
        """Look until it has converged: the last Change, with all that was done on the way."""
        steps: tuple[Step, ...] = ()
        for _ in range(_LOOKS):
            change = await self.look(unit)
            steps += change.steps
            if change.pending is None:
                return attrs.evolve(change, steps=steps)
            await self.bystander.pass_time(change.pending.look_again_s)
        raise AssertionError(f"{unit.name} did not converge in {_LOOKS} looks")

    async def expect_failure(self, unit: SystemdUnit) -> Exception:
        """Look until it fails: its error."""
        with pytest.raises(Exception) as raised:  # noqa: PT011 - the caller looks at it
            await self.apply_one(unit)
        return raised.value

    async def remove_one(self, name: str) -> Change:
        """Take it away, also if that takes a while."""
        steps: tuple[Step, ...] = ()
        for _ in range(_LOOKS):
            (result,) = await self.units.remove([name], apply=True)
            change = require_change(result)
            steps += change.steps
            if change.pending is None:
                return attrs.evolve(change, steps=steps)
            await self.bystander.pass_time(change.pending.look_again_s)
        raise AssertionError(f"{name} was not removed in {_LOOKS} looks")

    def file(self, name: str) -> bytes | None:
        """Return the unit file that Harmony wrote."""
        return self.bystander.read(f"/etc/systemd/system/{name}")

    async def marks(self, name: str) -> tuple[str, str, bytes | None]:
        """Return what stays the same when nothing is done."""
        return (
            await self.bystander.identity(name),
            await self.bystander.reloads(),
            self.file(name),
        )


def require_change(result: Change | Exception) -> Change:
    if isinstance(result, Exception):
        raise result
    return result


class UnitContract(ABC):
    """What its parts have in common."""

    NAME: ClassVar[str] = "harmony-contract.service"
    OTHER: ClassVar[str] = "harmony-contract-other.service"
    TIMER: ClassVar[str] = "harmony-contract.timer"
    USED: ClassVar[str] = "/run/harmony-contract.conf"

    @pytest.fixture
    @abstractmethod
    def host(self) -> UnitsUnderTest:
        """Return a device without these units, and without a file `USED`."""

    def content(self, command: str = SLEEP, *settings: str, install: bool = True) -> str:
        """Return the text of a unit file."""
        lines = ["[Service]", "Type=exec", f"ExecStart={command}", *settings]
        return "\n".join([*lines, *(["[Install]", "WantedBy=multi-user.target"] * install), ""])

    def unit(self, command: str = SLEEP, *settings: str, **fields: Any) -> SystemdUnit:
        """Return a unit whose service has settled soon."""
        given = {"name": self.NAME, "content": self.content(command, *settings), "settle_s": 0.5}
        return SystemdUnit.model_validate({**given, **fields})

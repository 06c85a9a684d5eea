"""A small systemd in memory: unit files, links, processes and time, as far as reconcilers can tell.

Services run programs, which are looked up by their ExecStart; other units are just up. Time passes only in
`pass_time`, from event to event.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime, timedelta

import attrs

from harmony_core.wire.times import rfc3339
from harmony_pi_topology.systemd.plan import install_lines
from harmony_pi_topology.systemd.records import FoundUnit

from .fake_files import FakeFiles

__all__ = ["BEGINNING", "OURS", "THEIRS", "FakeInit", "ServiceProgram"]

OURS = "/etc/systemd/system/"
THEIRS = "/usr/lib/systemd/system/"

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
_BOOTED_S = 1000.0
_RESTART_S = 0.1
_SETTING = re.compile(r"^(\w+)=(.*)$", re.MULTILINE)
_YES = frozenset({"1", "yes", "true", "on"})
_SUB_WHEN_UP = {"socket": "listening", "timer": "waiting", "path": "waiting", "mount": "mounted"}


@attrs.frozen(kw_only=True)
class ServiceProgram:
    """What a service does whose ExecStart is a certain command."""

    exit_code: int | None = None
    """Ends with this code; None runs on. 203 stands for a program that cannot be run."""
    ends_after_s: float = 0.0
    starts_in_s: float = 0.0
    """How long it takes until it has started, as far as systemd knows."""
    log: tuple[str, ...] = ()
    """Lines that it writes at each start."""
    ready_after_s: float = 0.0
    """From when on its readiness probe succeeds, counted from its start."""


@attrs.define(kw_only=True)
class _Loaded:
    """A unit that was read from its file."""

    name: str
    settings: dict[str, str]
    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    exit_status: int = 0
    invocation: str = ""
    restarts: int = 0
    left_inactive_s: float = 0.0
    up_since_s: float = 0.0
    up_until_s: float = 0.0
    starting: bool = False
    program: ServiceProgram = ServiceProgram()
    command: str = ""
    drop_ins: tuple[str, ...] = ()
    due_s: float = math.inf
    due: Callable[[], None] | None = None

    @property
    def is_service(self) -> bool:
        return self.name.endswith(".service")

    @property
    def oneshot(self) -> bool:
        return self.settings.get("Type") == "oneshot"

    @property
    def is_bad(self) -> bool:
        return self.is_service and "ExecStart" not in self.settings

    def plan(self, at_s: float, due: Callable[[], None] | None) -> None:
        self.due_s, self.due = at_s, due


class FakeInit:
    """Boots with no units but those whose files are put into ``files``."""

    def __init__(self) -> None:
        self.files: MutableMapping[str, bytes] = FakeFiles().contents
        self.programs: dict[str, ServiceProgram] = {}
        self.links: dict[str, list[str]] = {}
        """Of each enabled unit, what its [Install] section said then."""
        self.masked: set[str] = set()
        self.log: defaultdict[str, list[str]] = defaultdict(list)
        self.now_s = _BOOTED_S
        self.reloads = 0
        self.listeners: list[Callable[[str | None], None]] = []
        """Called with the name of each unit that starts, stops or fails, and with None when all may
        have changed."""
        self._loaded: dict[str, _Loaded] = {}
        self._numbers = itertools.count(1)

    def found(self, name: str) -> FoundUnit:
        """What it tells of *name*."""
        enablement = self._enablement(name)
        unit = self._load(name)
        if unit is None or "@." in name:
            load = "masked" if name in self.masked else "loaded" if enablement else "not-found"
            return FoundUnit(load=load, enablement=enablement)
        return FoundUnit(
            load="bad-setting" if unit.is_bad else "loaded",
            problem="Unit has a bad unit file setting." if unit.is_bad else "",
            active=unit.active,
            sub=unit.sub,
            result=unit.result,
            exit_status=unit.exit_status,
            oneshot=unit.oneshot,
            enablement=enablement,
            has_job=unit.starting,
            invocation=unit.invocation,
            restarts=unit.restarts,
            left_inactive_s=unit.left_inactive_s,
            up_since_s=unit.up_since_s,
            up_until_s=unit.up_until_s,
            since=rfc3339(BEGINNING + timedelta(seconds=unit.up_since_s)),
            drop_ins=unit.drop_ins,
        )

    def reload(self) -> None:
        """Read all files anew. What runs goes on; what does not, and has no file, is forgotten."""
        self.reloads += 1
        for name, unit in list(self._loaded.items()):
            text = self._text(name)
            if text is not None:
                unit.settings = _settings(text)
                unit.drop_ins = self._drop_ins(name)
            elif unit.active in {"inactive", "failed"}:
                del self._loaded[name]
        self._tell(None)

    def enable(self, name: str) -> None:
        self.links[name] = install_lines(self._text(name) or "")
        self._tell(None)

    def disable(self, name: str) -> None:
        self.links.pop(name, None)
        self._tell(None)

    def mask(self, name: str) -> None:
        """Let it not be started by anybody. The mask takes the place of its file."""
        self.masked.add(name)
        self.files.pop(OURS + name, None)
        self._tell(None)

    def unmask(self, name: str) -> None:
        """Take that away; its file is not back."""
        self.masked.discard(name)

    def start(self, name: str) -> str | None:
        """The job's result; None while it is under way."""
        unit = self._load(name)
        if unit is None or unit.is_bad:
            return "failed"
        if unit.active not in {"inactive", "failed"}:
            return "done"
        unit.restarts = 0
        self._begin(unit)
        self._tell(name)
        return None if unit.starting else "failed" if unit.exit_status == 203 else "done"

    def stop(self, name: str) -> None:
        unit = self._load(name)
        if unit is None or unit.active in {"inactive", "failed"}:
            return
        unit.plan(math.inf, None)
        unit.active, unit.sub, unit.result, unit.starting = "inactive", "dead", "success", False
        unit.up_until_s = self.now_s
        self._tell(name)

    def restart(self, name: str) -> str | None:
        self.stop(name)
        return self.start(name)

    def forget(self, name: str) -> None:
        """Know nothing more of it."""
        self._loaded.pop(name, None)

    def kill(self, name: str) -> None:
        """Its process dies of a signal."""
        self._ended(self._loaded[name], 9)
        self._tell(name)

    def program(self, name: str) -> ServiceProgram:
        """What it runs, or last ran."""
        return self._loaded[name].program

    def command(self, name: str) -> str:
        """What it runs; empty when it does not."""
        unit = self._loaded.get(name)
        return unit.command if unit is not None and unit.active == "active" else ""

    def pass_time(self, seconds: float) -> None:
        """Let everything happen that is due within *seconds*."""
        end_s = self.now_s + seconds
        while (unit := min(self._loaded.values(), key=lambda unit: unit.due_s, default=None)) and (
            unit.due_s <= end_s and unit.due is not None
        ):
            self.now_s = max(self.now_s, unit.due_s)
            due = unit.due
            unit.plan(math.inf, None)
            due()
            self._tell(unit.name)
        self.now_s = end_s

    def _tell(self, name: str | None) -> None:
        for listener in self.listeners:
            listener(name)

    def _load(self, name: str) -> _Loaded | None:
        text = self._text(name)
        if name not in self._loaded and text is not None and name not in self.masked:
            self._loaded[name] = _Loaded(
                name=name, settings=_settings(text), drop_ins=self._drop_ins(name)
            )
        return self._loaded.get(name)

    def _text(self, name: str) -> str | None:
        file = self.files.get(OURS + name, self.files.get(THEIRS + name))
        return file.decode() if file is not None else None

    def _drop_ins(self, name: str) -> tuple[str, ...]:
        """The paths; what is in them makes no difference here."""
        directory = f"{OURS}{name}.d/"
        return tuple(
            sorted(p for p in self.files if p.startswith(directory) and p.endswith(".conf"))
        )

    def _enablement(self, name: str) -> str:
        text = self._text(name)
        if name in self.masked:
            return "masked"
        if text is None:
            return ""
        lines = install_lines(text)
        if not lines:
            return "static"
        return "enabled" if self.links.get(name) == lines else "disabled"

    def _begin(self, unit: _Loaded) -> None:
        unit.invocation = f"{next(self._numbers):032x}"
        unit.left_inactive_s = self.now_s
        unit.result, unit.exit_status = "success", 0
        if not unit.is_service:
            unit.active = "active"
            unit.sub = _SUB_WHEN_UP.get(unit.name.rpartition(".")[2], "active")
            unit.up_since_s = self.now_s
            return
        unit.command = unit.settings["ExecStart"]
        unit.program = self.programs.get(unit.command, ServiceProgram())
        self.log[unit.name].extend(unit.program.log)
        unit.active, unit.sub = "activating", "start"
        if unit.program.exit_code == 203:
            self._ended(unit, 203)
        elif unit.oneshot:
            self._soon(unit, unit.program.ends_after_s, lambda: self._done(unit))
        else:
            self._soon(unit, unit.program.starts_in_s, lambda: self._up(unit))

    def _soon(self, unit: _Loaded, seconds: float, then: Callable[[], None]) -> None:
        """What ends its start."""
        unit.starting = seconds > 0
        if unit.starting:
            unit.plan(self.now_s + seconds, then)
        else:
            then()

    def _done(self, unit: _Loaded) -> None:
        """A oneshot has run."""
        unit.starting = False
        code = unit.program.exit_code or 0
        if code == 0 and unit.settings.get("RemainAfterExit") in _YES:
            unit.active, unit.sub, unit.up_since_s = "active", "exited", self.now_s
        else:
            self._ended(unit, code)

    def _up(self, unit: _Loaded) -> None:
        unit.starting = False
        unit.active, unit.sub, unit.up_since_s = "active", "running", self.now_s
        code = unit.program.exit_code
        if code is not None and unit.program.ends_after_s > 0:
            ends_s = self.now_s + unit.program.ends_after_s
            unit.plan(ends_s, lambda: self._ended(unit, code))
        elif code is not None:
            self._ended(unit, code)

    def _ended(self, unit: _Loaded, code: int) -> None:
        unit.plan(math.inf, None)
        unit.result, unit.exit_status = ("exit-code" if code else "success"), code
        if unit.active == "active":
            unit.up_until_s = self.now_s
        policy = unit.settings.get("Restart", "no")
        if policy == "always" or (policy == "on-failure" and code):
            unit.active, unit.sub = "activating", "auto-restart"
            unit.plan(self.now_s + _RESTART_S, lambda: self._again(unit))
        else:
            unit.active = "failed" if code else "inactive"
            unit.sub = "failed" if code else "dead"

    def _again(self, unit: _Loaded) -> None:
        unit.restarts += 1
        self._begin(unit)


def _settings(text: str) -> dict[str, str]:
    return dict(_SETTING.findall(text))

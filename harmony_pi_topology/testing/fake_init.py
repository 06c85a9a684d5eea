"""A small systemd in memory: unit files, links, processes and time, as far as reconcilers can tell.

Services run programs, which are looked up by their ExecStart; other units are just up. Time passes only in
`pass_time`, from event to event.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from datetime import UTC, datetime, timedelta

import attrs

from harmony_core.unit_install import read_install_words
from harmony_core.wire.times import rfc3339
from harmony_pi_topology.systemd.plan import read_install_lines
from harmony_pi_topology.systemd.records import FoundUnit

from .fake_files import FakeFiles

__all__ = ["BEGINNING", "OURS", "STAMPS", "THEIRS", "FakeInit", "ServiceProgram"]

OURS = "/etc/systemd/system/"
THEIRS = "/usr/lib/systemd/system/"
STAMPS = "/var/lib/systemd/timers/stamp-"
_DIRECTORIES = (
    "/etc/systemd/system.control/",
    "/run/systemd/system.control/",
    OURS,
    "/run/systemd/system/",
    THEIRS,
)
"""Where unit files are, those first that take precedence."""

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
_BOOTED_S = 1000.0
_RESTART_S = 0.1
_NO_PROGRAM, _NO_CREDENTIALS = 203, 243
_UNSTARTED = frozenset({_NO_PROGRAM, _NO_CREDENTIALS})
"""systemd's own codes of a service that has not even begun."""
_SETTING = re.compile(r"^(\w+)=(.*)$", re.MULTILINE)
_YES = frozenset({"1", "yes", "true", "on"})
_STARTS_OTHERS = {"socket": "Service", "path": "Unit", "timer": "Unit"}
"""By which setting, where it does not start the service of its name."""
_SUB_WHEN_UP = {
    "socket": "listening",
    "timer": "waiting",
    "path": "waiting",
    "mount": "mounted",
    "automount": "waiting",
}


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
    fragment: str
    read: dict[str, bytes]
    """What was in its unit file and in each of its drop-ins when they were read."""
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
    frozen: bool = False
    began: int = 0
    """Which of all events its last start was."""
    began_with: dict[str, bytes] = attrs.field(factory=dict[str, bytes])
    """Every file as it was then."""
    due_s: float = math.inf
    due: Callable[[], None] | None = None

    @property
    def is_service(self) -> bool:
        return self.name.endswith(".service")

    @property
    def settings(self) -> dict[str, str]:
        """Those of its drop-ins over those of its file."""
        return {name: value for text in self.read.values() for name, value in _settings(text)}

    @property
    def credentials(self) -> dict[str, str]:
        """The file of each credential, by name; an empty setting takes away those before it."""
        found: dict[str, str] = {}
        for text in self.read.values():
            for setting, value in _settings(text):
                if setting == "LoadCredential":
                    name, _, path = value.partition(":")
                    found = {**found, name: path} if value else {}
        return found

    @property
    def drop_ins(self) -> tuple[str, ...]:
        return tuple(path for path in self.read if path != self.fragment)

    @property
    def oneshot(self) -> bool:
        return self.settings.get("Type") == "oneshot"

    @property
    def is_bad(self) -> bool:
        return self.is_service and "ExecStart" not in self.settings

    @property
    def never_elapses(self) -> bool:
        """Of calendars, only a single day is understood here."""
        day = self.settings.get("OnCalendar", "")
        return day[:4].isdigit() and day < f"{BEGINNING:%Y-%m-%d}"

    def plan(self, at_s: float, due: Callable[[], None] | None) -> None:
        self.due_s, self.due = at_s, due


class FakeInit:
    """Boots with no units but those whose files are put into ``files``."""

    def __init__(self) -> None:
        self.files: MutableMapping[str, bytes] = FakeFiles().contents
        self.programs: dict[str, ServiceProgram] = {}
        self.links: dict[str, list[str]] = {}
        """Of each enabled unit, what its [Install] section said then."""
        self.aliases: dict[str, str] = {}
        """Of each mere other name, whose it is."""
        self.masked: set[str] = set()
        self.log: defaultdict[str, list[str]] = defaultdict(list)
        self.now_s = _BOOTED_S
        self.reloads = 0
        self.listeners: list[Callable[[str | None], None]] = []
        """Called with the name of each unit that starts, stops or fails, and with None when all may
        have changed."""
        self._loaded: dict[str, _Loaded] = {}
        self._events = itertools.count(1)
        self._read_at = 0
        self._touched: dict[str, int] = {}
        self._numbers = itertools.count(1)

    def look(self, name: str) -> FoundUnit:
        """Return what systemd would say about *name*."""
        if name in self.aliases:
            return attrs.evolve(self.look(self.aliases[name]), enablement="alias")
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
            drop_ins=tuple(path for path in unit.drop_ins if "/service.d/" not in path),
            loaded_drop_ins=unit.drop_ins,
            fragment=unit.fragment,
            is_outdated=self._read(unit.name) != unit.read,
            was_read_before=self._read_at < unit.began,
            unit_id=name,
            names=(name, *(each for each, of in self.aliases.items() if of == name)),
            never_elapses=unit.sub == "elapsed",
            frozen=unit.frozen,
            credentials=unit.credentials,
            slice=unit.settings.get("Slice", "system.slice"),
            running_services=tuple(self._list_running_services(unit)),
            members=tuple(self._list_members(unit)),
            lacking=tuple(each for each in self._list_triggered(unit) if self._load(each) is None),
        )

    def touch(self, path: str) -> None:
        """Note that somebody has written a file, perhaps with the content that it has already."""
        self._touched[path] = next(self._events)

    def list_untouched(self, name: str, paths: Iterable[str]) -> set[str]:
        """Return those of *paths* that are there, and as they were when *name* was last started."""
        unit = self._loaded.get(name)
        if unit is None:
            return set()
        return {
            path
            for path in paths
            if path in self.files
            and self._touched.get(path, 0) < unit.began
            and unit.began_with.get(path) == self.files[path]
        }

    def reload(self) -> None:
        """Read all files anew. What runs goes on; what does not, and has no file, is forgotten."""
        self.reloads += 1
        self._read_at = next(self._events)
        for name, unit in list(self._loaded.items()):
            fragment = self._fragment(name)
            if fragment is not None:
                unit.fragment, unit.read = fragment, self._read(name)
            elif unit.active in {"inactive", "failed"}:
                del self._loaded[name]
        self._tell(None)

    def enable(self, name: str) -> None:
        text = self._text(name) or ""
        for other in self.also(name):
            if other not in self.links:
                self.links[other] = read_install_lines(self._text(other) or "")
        self.links[name] = read_install_lines(text)
        self.aliases.update(dict.fromkeys(read_install_words(text, "Alias"), name))
        self._tell(None)

    def disable(self, name: str) -> None:
        for other in (name, *self.also(name)):
            self.links.pop(other, None)
        self.aliases = {each: of for each, of in self.aliases.items() if of != name}
        self._tell(None)

    def also(self, name: str) -> list[str]:
        """Return what is enabled or disabled with it."""
        named = read_install_words(self._text(name) or "", "Also")
        return [*named, *(further for each in named for further in self.also(each))]

    def mask(self, name: str) -> None:
        """Let it not be started by anybody. The mask takes the place of its file."""
        self.masked.add(name)
        self.files.pop(OURS + name, None)
        self._tell(None)

    def unmask(self, name: str) -> None:
        """Take that away; its file is not back."""
        self.masked.discard(name)

    def start(self, name: str) -> str | None:
        """Start the unit. Return the job's result; None while it is under way."""
        unit = self._load(name)
        if unit is None or unit.is_bad:
            return "failed"
        if any(self._load(each) is None for each in self._list_triggered(unit)):
            return "failed"
        if unit.active not in {"inactive", "failed"}:
            return "done"
        if any(True for _ in self._list_running_services(unit)):
            return "failed"
        unit.restarts = 0
        self._begin(unit)
        self._tell(name)
        return None if unit.starting else "failed" if unit.exit_status in _UNSTARTED else "done"

    def stop(self, name: str) -> None:
        unit = self._load(name)
        if unit is None or unit.active in {"inactive", "failed"}:
            return
        for member in list(self._list_members(unit)):
            self.stop(member)
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

    def freeze(self, name: str, *, frozen: bool) -> None:
        """Let its processes stand still, or go on."""
        self._loaded[name].frozen = frozen
        self._tell(name)

    def kill(self, name: str) -> None:
        """Kill the unit's process by a signal."""
        self._on_end(self._loaded[name], 9)
        self._tell(name)

    def program(self, name: str) -> ServiceProgram:
        """Return what the unit runs, or last ran."""
        return self._loaded[name].program

    def command(self, name: str) -> str:
        """Return what the unit runs; empty when it does not run."""
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

    def _list_triggered(self, unit: _Loaded) -> list[str]:
        """Return what the unit starts, where it is a socket, a path or a timer."""
        setting = _STARTS_OTHERS.get(unit.name.rpartition(".")[2])
        if setting is None or unit.settings.get("Accept") in _YES:
            return []
        return [unit.settings.get(setting, f"{unit.name.rpartition('.')[0]}.service")]

    def _list_running_services(self, unit: _Loaded) -> Iterator[str]:
        if unit.name.endswith(".socket"):
            yield from filter(self._is_up, self._list_triggered(unit))

    def _list_members(self, unit: _Loaded) -> Iterator[str]:
        if unit.name.endswith(".slice"):
            for name, each in list(self._loaded.items()):
                if each.settings.get("Slice") == unit.name and self._is_up(name):
                    yield name

    def _is_up(self, name: str) -> bool:
        unit = self._loaded.get(name)
        return unit is not None and unit.active not in {"inactive", "failed"}

    def _tell(self, name: str | None) -> None:
        for listener in self.listeners:
            listener(name)

    def _load(self, name: str) -> _Loaded | None:
        fragment = self._fragment(name)
        if name not in self._loaded and fragment is not None and name not in self.masked:
            self._loaded[name] = _Loaded(name=name, fragment=fragment, read=self._read(name))
        return self._loaded.get(name)

    def _fragment(self, name: str) -> str | None:
        """Return the path of the unit's file, or of its template's."""
        stem, at, rest = name.partition("@")
        names = [name, *([f"{stem}@.{rest.rpartition('.')[2]}"] if at else [])]
        paths = (directory + each for each in names for directory in _DIRECTORIES)
        return next((path for path in paths if path in self.files), None)

    def _text(self, name: str) -> str | None:
        fragment = self._fragment(name)
        return self.files[fragment].decode() if fragment is not None else None

    def _read(self, name: str) -> dict[str, bytes]:
        """Return the unit file, then its drop-ins: by path, what is in them now."""
        fragment = self._fragment(name)
        if fragment is None:
            return {}
        directories = {f"{top}{each}.d/" for top in _DIRECTORIES for each in _families(name)}
        drop_ins = sorted(
            path
            for path in self.files
            if path.endswith(".conf") and f"{path.rpartition('/')[0]}/" in directories
        )
        return {path: self.files[path] for path in (fragment, *drop_ins)}

    def _enablement(self, name: str) -> str:
        text = self._text(name)
        if name in self.masked:
            return "masked"
        if text is None:
            return ""
        lines = read_install_lines(text)
        if not lines:
            return "static"
        return "enabled" if self.links.get(name) == lines else "disabled"

    def _begin(self, unit: _Loaded) -> None:
        unit.invocation = f"{next(self._numbers):032x}"
        unit.began, unit.began_with = next(self._events), dict(self.files)
        unit.left_inactive_s = self.now_s
        unit.result, unit.exit_status = "success", 0
        if not unit.is_service:
            unit.active = "active"
            unit.sub = _SUB_WHEN_UP.get(unit.name.rpartition(".")[2], "active")
            unit.up_since_s = self.now_s
            if unit.settings.get("Persistent") in _YES:
                self.files[STAMPS + unit.name] = b""
            if unit.never_elapses:
                unit.sub = "elapsed"
            return
        unit.command = unit.settings["ExecStart"]
        unit.program = self.programs.get(unit.command, ServiceProgram())
        self.log[unit.name].extend(unit.program.log)
        unit.active, unit.sub = "activating", "start"
        if not self.files.keys() >= set(unit.credentials.values()):
            self._on_end(unit, _NO_CREDENTIALS)
        elif unit.program.exit_code == _NO_PROGRAM:
            self._on_end(unit, _NO_PROGRAM)
        elif unit.oneshot:
            self._soon(unit, unit.program.ends_after_s, lambda: self._on_done(unit))
        else:
            self._soon(unit, unit.program.starts_in_s, lambda: self._up(unit))

    def _soon(self, unit: _Loaded, seconds: float, then: Callable[[], None]) -> None:
        """Call *then*, which ends the start of *unit*, after so many *seconds*."""
        unit.starting = seconds > 0
        if unit.starting:
            unit.plan(self.now_s + seconds, then)
        else:
            then()

    def _on_done(self, unit: _Loaded) -> None:
        """End a oneshot that has run."""
        unit.starting = False
        code = unit.program.exit_code or 0
        if code == 0 and unit.settings.get("RemainAfterExit") in _YES:
            unit.active, unit.sub, unit.up_since_s = "active", "exited", self.now_s
        else:
            self._on_end(unit, code)

    def _up(self, unit: _Loaded) -> None:
        unit.starting = False
        unit.active, unit.sub, unit.up_since_s = "active", "running", self.now_s
        code = unit.program.exit_code
        if code is not None and unit.program.ends_after_s > 0:
            ends_s = self.now_s + unit.program.ends_after_s
            unit.plan(ends_s, lambda: self._on_end(unit, code))
        elif code is not None:
            self._on_end(unit, code)

    def _on_end(self, unit: _Loaded, code: int) -> None:
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


def _settings(text: bytes) -> list[tuple[str, str]]:
    return _SETTING.findall(text.decode())


def _families(name: str) -> list[str]:
    """Return the names whose drop-ins count for *name*, too: its template's, those of each prefix and of its
    type."""
    stem, _, kind = name.rpartition(".")
    template = [f"{stem.partition('@')[0]}@.{kind}"] if "@" in stem else []
    words = stem.partition("@")[0].split("-")
    prefixes = [f"{'-'.join(words[:n])}-.{kind}" for n in range(1, len(words))]
    return [name, *template, *prefixes, kind]

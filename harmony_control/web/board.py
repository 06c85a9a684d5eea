"""What the page shows of a fleet: one row a device, and which of them have changed since when.

Rows come from `Fleet.watch_rows`. What changes with every heartbeat is no change here, or ten thousand
devices would be told anew every half minute. Each change has a number, and each row the number of its last
one, so what somebody has missed is found without keeping what was sent: memory is bounded by the fleet,
however slow they read.
"""

from __future__ import annotations

import gzip
import json
import secrets
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import attrs

from harmony_control.fleet import DeviceRow
from harmony_core.visible import cut

__all__ = ["STATES", "Board", "Columns", "matches"]

STATES: Mapping[str, Mapping[str, str]] = {
    "device": {
        "Online": "O",
        "Silent": "S",
        "Offline": "F",
        "Unverified": "V",
        "Never": "N",
    },
    "update": {"UpToDate": "U", "Updating": "P", "OutOfDate": "D", "Refused": "R"},
    "workloads": {"Healthy": "H", "Degraded": "G", "Error": "E", "Unknown": "X"},
}
"""One character for each state of each axis, as the page reads them."""
_REASON_MOST = 200
_GONE_MOST = 4096
"""Devices that were taken out, as far as they are remembered; who has missed more begins anew."""


@attrs.frozen
class _Kept:
    row: DeviceRow
    changed: int
    """The number of the change that made it what it is."""


@attrs.frozen(slots=False)
class Columns:
    """The whole fleet at one moment, as it is sent; made once for all who ask."""

    tag: str
    data: bytes

    @cached_property
    def gzipped(self) -> bytes:
        return gzip.compress(self.data, 5, mtime=0)


class Board:
    """The rows of a fleet. Used by one event loop; nothing here waits."""

    def __init__(self, fleet: str = "") -> None:
        self.fleet = fleet
        self.number = 0
        """Of the newest change."""
        self._epoch = secrets.token_hex(4)
        self._kept: dict[str, _Kept] = {}
        self._gone: deque[tuple[int, str]] = deque()
        self._forgotten = 0
        """The newest change of which a device that is gone is not remembered."""
        self._columns: Columns | None = None
        self._newest: tuple[int, str] | None = None

    @property
    def tag(self) -> str:
        """What tells this moment from every other, also of another server: the id of an event."""
        return f"{self._epoch}-{self.number}"

    @property
    def ids(self) -> set[str]:
        """The devices that there are."""
        return set(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def rows(self) -> list[DeviceRow]:
        """Return every row, by id."""
        return [self._kept[each].row for each in sorted(self._kept)]

    def find(self, device_id: str) -> DeviceRow | None:
        """Return the row of that device; None for one that there is not."""
        kept = self._kept.get(device_id)
        return kept.row if kept else None

    def take(self, rows: Iterable[DeviceRow], gone: Iterable[str] = ()) -> bool:
        """Take what has changed, and who is *gone*. Return whether anything visible has changed."""
        number = self.number + 1
        is_news = False
        for row in rows:
            before = self._kept.get(row.id)
            shows = before is None or _shown(before.row) != _shown(row)
            changed = number if before is None or shows else before.changed
            is_news = is_news or shows
            self._kept[row.id] = _Kept(row, changed)
        for each in gone:
            if self._kept.pop(each, None) is not None:
                self._gone.append((number, each))
                is_news = True
        while len(self._gone) > _GONE_MOST:
            self._forgotten = self._gone.popleft()[0]
        if is_news:
            self.number = number
            self._columns = self._newest = None
        return is_news

    def columns(self) -> Columns:
        """Return the whole fleet as it is now."""
        if self._columns is None:
            self._columns = Columns(self.tag, _dumps(self._to_columns()).encode())
        return self._columns

    def read_tag(self, tag: str) -> int | None:
        """Return the number in *tag*, where the changes after it are known; else None."""
        epoch, _, number = tag.partition("-")
        if epoch != self._epoch or not (number.isascii() and number.isdigit() and len(number) < 16):
            return None
        since = int(number)
        return since if self._forgotten <= since <= self.number else None

    def changes_since(self, since: int) -> str | None:
        """Return the changes after *since*, as JSON on one line; None where they are no longer known.

        Nearly everybody asks only for the newest change: it is made once.
        """
        if not self._forgotten <= since <= self.number:
            return None
        if self._newest is None or self._newest[0] != since:
            made = since, _dumps(self._to_changes(since))
            if since != self.number - 1:
                return made[1]
            self._newest = made
        return self._newest[1]

    def _to_columns(self) -> Mapping[str, object]:
        rows = self.rows()
        return {
            "tag": self.tag,
            "fleet": self.fleet,
            "states": STATES,
            "ids": [each.id for each in rows],
            "device": "".join(_code("device", each.device) for each in rows),
            "update": "".join(_code("update", each.update) for each in rows),
            "workloads": "".join(_code("workloads", each.workloads) for each in rows),
            "reasons": [cut(each.reason, _REASON_MOST) for each in rows],
            "versions": [each.agent_version for each in rows],
            "labels": _label_columns(rows),
        }

    def _to_changes(self, since: int) -> Mapping[str, object]:
        changed = [each.row for each in self._kept.values() if each.changed > since]
        return {
            "rows": [_to_pair(each) for each in changed],
            "gone": [
                name for number, name in self._gone if number > since and name not in self._kept
            ],
        }


def matches(row: DeviceRow, words: Sequence[str]) -> bool:
    """Return whether each of *words*, in lower case, occurs in what is said of the device.

    The page searches in the same text (page/src/search.ts).
    """
    said = (row.id, row.device, row.update, row.workloads, row.agent_version, row.reason)
    labels = (f"{name}={value}" for name, value in row.labels.items())
    text = " ".join((*said, *labels)).lower()
    return all(each in text for each in words)


def _shown(row: DeviceRow) -> tuple[object, ...]:
    return (
        row.device,
        row.update,
        row.workloads,
        cut(row.reason, _REASON_MOST),
        row.agent_version,
        row.wanted_generation,
        row.observed_generation,
        row.labels,
        # Drift that was put right leaves no other trace in a row, and a page of the device is open.
        row.events,
    )


def _to_pair(row: DeviceRow) -> list[object]:
    code = "".join(
        _code(axis, state)
        for axis, state in zip(STATES, (row.device, row.update, row.workloads), strict=True)
    )
    return [row.id, code, cut(row.reason, _REASON_MOST), row.agent_version, dict(row.labels)]


def _label_columns(rows: Sequence[DeviceRow]) -> Mapping[str, object]:
    """Return the values of each label, in the order of *rows*; for a rare label, by their positions."""
    found: dict[str, dict[int, str]] = {}
    for place, row in enumerate(rows):
        for name, value in row.labels.items():
            found.setdefault(name, {})[place] = value
    return {
        name: [values.get(place) for place in range(len(rows))]
        if len(values) * 4 > len(rows)
        else values
        for name, values in sorted(found.items())
    }


def _code(axis: str, state: str) -> str:
    return STATES[axis].get(state, "?")


_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def _dumps(value: object) -> str:
    """Return compact JSON. A lone surrogate becomes a question mark."""
    return _ENCODER.encode(value).encode(errors="replace").decode()

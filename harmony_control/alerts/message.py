"""What is told, as JSON for programs and as text for people. Pure.

Words of devices are made visible, and short: they go into mails, and into the chats of others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import attrs

from harmony_core.visible import cut, word

from .find import Kind

__all__ = ["Alert", "Message", "State"]

State: TypeAlias = Literal["firing", "resolved", "test"]
DEVICES_TOLD = 20
ALERTS_TOLD = 100
_REASON_MOST = 200


@attrs.frozen(kw_only=True)
class Alert:
    """One group, and what has become of it."""

    id: str
    """The same whenever the same is told again, as after a server that died over it."""
    state: State
    kind: Kind | None
    of: str
    count: int
    devices: Mapping[str, str]
    """Why, by id."""
    text: str = ""

    @property
    def title(self) -> str:
        """In one line."""
        of = word(self.of)
        title = _title(self.kind, of, self.count)
        return f"over: {title}" if self.state == "resolved" else title

    def to_json(self) -> dict[str, object]:
        """Return the JSON to send."""
        names = sorted(self.devices)[:DEVICES_TOLD]
        return {
            "id": self.id,
            "state": self.state,
            "kind": self.kind,
            "of": self.of,
            "count": self.count,
            "title": self.title,
            "text": _shown(self.text),
            "devices": {each: _shown(self.devices[each]) for each in names},
        }

    def to_text(self) -> str:
        """Return the text for people."""
        names = sorted(self.devices)[:DEVICES_TOLD]
        lines = [self.title, *([f"  {_shown(self.text)}"] if self.text else [])]
        lines += [f"  {each}: {_shown(self.devices[each]) or '-'}" for each in names]
        if (more := len(self.devices) - len(names)) > 0:
            lines.append(f"  and {more} more")
        return "\n".join(lines)


@attrs.frozen(kw_only=True)
class Message:
    """What is sent at once."""

    fleet: str
    alerts: Sequence[Alert]

    @property
    def title(self) -> str:
        """In one line."""
        more = f", and {len(self.alerts) - 1} more" if len(self.alerts) > 1 else ""
        return f"[{word(self.fleet)}] {self.alerts[0].title}{more}"

    def to_json(self) -> dict[str, object]:
        """Return the JSON to send."""
        return {
            "version": 1,
            "fleet": self.fleet,
            "title": self.title,
            "text": self.to_text(),
            "alerts": [each.to_json() for each in self.alerts[:ALERTS_TOLD]],
        }

    def to_text(self) -> str:
        """Return the text for people."""
        parts = [each.to_text() for each in self.alerts[:ALERTS_TOLD]]
        if (more := len(self.alerts) - ALERTS_TOLD) > 0:
            parts.append(f"and {more} more of the kind")
        return "\n\n".join(parts) + "\n"


def _title(kind: Kind | None, of: str, count: int) -> str:
    devices = "1 device" if count == 1 else f"{count} devices"
    are = "is" if count == 1 else "are"
    at = f" at {of}" if of else ""
    match kind:
        case None:
            return "a test of harmony's alerts: nothing is wrong"
        case "DevicesOffline":
            return f"{devices}{at} {are} offline"
        case "WorkloadsError":
            return f"Scores have failed on {devices}{at}"
        case "NotWhoTheySay":
            return f"somebody else speaks in the name of {devices}{at}"
        case "RolloutAborted":
            name, _, generation = of.partition("/")
            return f"the rollout of {name}, generation {generation}, was aborted"
        case "RootExpires":
            return f"the root document, version {of}, expires soon"


def _shown(text: str) -> str:
    return cut(word(text), _REASON_MOST)

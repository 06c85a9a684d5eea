"""How a class is rolled out, in the words of fleet.yaml: by these it is compared, and shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harmony_control.rollout.publish import complete_waves
from harmony_core.wire.class_manifest import Rollout, Window

__all__ = ["describe_rollout", "find_changed_settings"]

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))


def find_changed_settings(
    before: Mapping[str, str], after: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """Return the settings that differ, each before and after."""
    return {name: (before[name], after[name]) for name in after if before[name] != after[name]}


def describe_rollout(upto: Sequence[tuple[str, int]], settings: Rollout) -> dict[str, str]:
    """Return each setting by the name that it has below ``rollout:``. What differs reads differently."""
    return {
        "canary": "-" if settings.canary is None else settings.canary or "every device",
        "steps": ", ".join(_tell_wave(*each) for each in complete_waves(upto)),
        "success": _tell_percent(settings.success_percent),
        "max_unhealthy": _tell_percent(settings.unhealthy_percent),
        "online_min": _tell_percent(settings.online_percent),
        "deadline": _tell_duration(settings.deadline_s),
        "windows": "; ".join(map(_tell_window, settings.windows)) or "always",
        "on_stop": settings.on_stop,
    }


def _tell_wave(upto: str, soak_s: int) -> str:
    return f"{upto} soak {_tell_duration(soak_s)}" if soak_s else upto


def _tell_percent(value: float) -> str:
    return f"{value!r}%".replace(".0%", "%")


def _tell_duration(seconds: int) -> str:
    for size, unit in _UNITS:
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _tell_window(window: Window) -> str:
    return f"{','.join(window.days)} {window.begin}-{window.until}"

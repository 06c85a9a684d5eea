"""A setting of the host as a whole: its name, its time zone, its locale, its keyboard.

There is always one; a Score says which.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, Self, TypeAlias

import attrs
from pydantic import model_validator

from ._base import Privilege, Resource, State

__all__ = [
    "HostSetting",
    "HostSettingAt",
    "HostSettingName",
    "check_hostname",
    "check_keyboard",
    "check_locale",
    "check_timezone",
]

HostSettingName: TypeAlias = Literal["hostname", "timezone", "locale", "keyboard"]

_FILES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "hostname": ("/etc/hostname",),
        "timezone": ("/etc/localtime",),
        # The second of these is where Debian has it, and since Debian 13 a link to the first.
        "locale": ("/etc/locale.conf", "/etc/default/locale"),
        "keyboard": ("/etc/vconsole.conf", "/etc/default/keyboard"),
    }
)
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOSTNAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_TIMEZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}")
_LOCALE = re.compile(r"C|POSIX|C\.UTF-8|[a-z]{2,3}_[A-Z]{2}(?:\.[A-Za-z0-9-]+)?(?:@[a-z]+)?")
_KEYBOARD = re.compile(r"[a-z][a-z0-9_-]*(?:\([A-Za-z0-9_-]+\))?")
_MOST = 64


def check_hostname(name: str) -> str:
    """Return *name*. Raise ValueError if it is no name of a host."""
    if len(name) > _MOST or not _HOSTNAME.fullmatch(name):
        raise ValueError(
            f"write a name of at most {_MOST} lower-case letters, digits and inner hyphens, as in kiosk-1"
        )
    return name


def check_timezone(name: str) -> str:
    """Return *name*. Raise ValueError if it cannot be a time zone. Only the device knows which ones exist."""
    if len(name) > _MOST or not _TIMEZONE.fullmatch(name):
        raise ValueError("write the name of a time zone, as in Europe/Berlin")
    return name


def check_locale(name: str) -> str:
    """Return *name*. Raise ValueError if it cannot be a locale. Only the device knows which ones it can
    have."""
    if len(name) > _MOST or not _LOCALE.fullmatch(name):
        raise ValueError("write the name of a locale, as in en_GB.UTF-8")
    return name


def check_keyboard(name: str) -> str:
    """Return *name*. Raise ValueError if it is no layout of a keyboard, with its variant."""
    if len(name) > _MOST or not _KEYBOARD.fullmatch(name):
        raise ValueError("write a layout, with its variant if need be, as in gb or de(nodeadkeys)")
    return name


_CHECKS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "hostname": check_hostname,
        "timezone": check_timezone,
        "locale": check_locale,
        "keyboard": check_keyboard,
    }
)


class HostSetting(Resource):
    """The setting *name* of the host has this value, now and after every boot.

    What it was before is kept, and comes back when the Score goes, unless somebody else changed it since.
    """

    resource_type: ClassVar[str] = "host"

    name: HostSettingName
    """Which setting: the host's name, its time zone, its locale, or its keyboard."""
    value: str
    """What it is to be, as in kiosk-1, Europe/Berlin, en_GB.UTF-8 or de(nodeadkeys)."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        _CHECKS[self.name](self.value)
        return self

    @property
    def key(self) -> str:
        return self.name

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...]:
        return _FILES[key]

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - none is stopped or changed for it
        return ()

    @property
    def privileges(self) -> frozenset[Privilege]:
        return frozenset()

    @property
    def exclusive(self) -> frozenset[str]:
        return frozenset(f"path:{path}" for path in _FILES[self.name])

    @classmethod
    def survives_reboot(cls, key: str) -> bool:  # noqa: ARG003 - all do
        return True


@attrs.frozen(kw_only=True)
class HostSettingAt(State):
    """The host has it: ``value`` from the next boot on, and ``in_force`` now. Empty where it has none."""

    value: str
    in_force: str

    @property
    def is_ready(self) -> bool:
        return self.value == self.in_force

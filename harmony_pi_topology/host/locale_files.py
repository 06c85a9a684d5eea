"""The files of Debian that say which locale and keyboard there are: read, and replaced as a whole, safely.

systemd-localed is not asked to write them: since Debian 13 its D-Bus policy lets nobody, not even root. It is
asked afterwards what it reads there. Every line but ours stays.

    locale   -> LANG                      /etc/locale.conf, or /etc/default/locale before Debian 13
    keyboard -> XKBLAYOUT, XKBVARIANT     /etc/default/keyboard, to which /etc/vconsole.conf leads
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Final

from harmony_core.errors import InvalidResource, UnsafePath
from harmony_core.resources import HostSetting
from harmony_pi_topology.common.path_calls import PATIENCE_S
from harmony_pi_topology.common.path_disk import PathDisk
from harmony_pi_topology.posix.found import refuse_other_kinds
from harmony_pi_topology.posix.root import Draft

__all__ = ["LocaleFiles", "file_of", "layout_of", "value_in"]

_MAX_BYTES: Final = 64 * 1024
_KEPT: Final = "surrogateescape"
"""What others have written in some other encoding stays, byte for byte."""
_BUILT_IN: Final = frozenset({"C", "POSIX"})
_LOCALES: Final = "usr/lib/locale"
_ARCHIVE: Final = "locale-archive"
_LAYOUTS: Final = "usr/share/X11/xkb/symbols"
_MADE: Final[Mapping[str, str]] = MappingProxyType(
    {"locale": "/etc/default/locale", "keyboard": "/etc/default/keyboard"}
)
"""Where there is none yet, it is made; where this leads, if it is a link."""


def file_of(root: Path, name: str) -> str:
    """Return the path of the file that has the setting *name*, as the device has it."""
    for path in (*HostSetting.paths_of(name), _MADE[name]):
        led = _resolve_link(root, path)
        if (root / led[1:]).exists():
            return led
    return _resolve_link(root, _MADE[name])


def value_in(path: Path, name: str) -> str:
    """Return the value of the setting *name* in the file at *path*; empty where it has none."""
    with path.open(encoding="utf-8", errors="replace") as file:
        assigned = _parse_assignments(file.read(_MAX_BYTES))
    if name == "locale":
        return assigned.get("LANG", "")
    return layout_of(assigned.get("XKBLAYOUT", ""), assigned.get("XKBVARIANT", ""))


def layout_of(layout: str, variant: str) -> str:
    """Return layout and variant in one word: ``de(nodeadkeys)``."""
    return f"{layout}({variant})" if layout and variant else layout


class LocaleFiles(PathDisk):
    """Writes them below *root*."""

    def __init__(self, root: str) -> None:
        super().__init__("locale and keyboard", root, PATIENCE_S)
        self._top = Path(root)

    async def write(self, name: str, value: str, *, was_there: bool) -> None:
        """Set *name* to this value; remove it where the value is empty. Raise `InvalidResource` where the
        device has no such locale or layout, unless that *was_there* before: others write several
        (``us,de``)."""
        if not was_there:
            await self._calls.run(self._refuse_unknown, name, value)
        await self._calls.run(self._write, name, value)

    # From here on in the thread.

    def _refuse_unknown(self, name: str, value: str) -> None:
        if name == "locale":
            self._refuse_unknown_locale(value)
        else:
            self._refuse_unknown_layout(value)

    def _write(self, name: str, value: str) -> None:
        if name == "locale":
            assigned = {"LANG": value}
        else:
            layout, _, variant = value.removesuffix(")").partition("(")
            assigned = {"XKBLAYOUT": layout, "XKBVARIANT": variant}
        path = file_of(self._top, name)
        found = self._root.look(path)
        text, mode = "", 0o644
        if found is not None:
            refuse_other_kinds(path, found)
            text, mode = (
                self._root.read(path, max_bytes=_MAX_BYTES).decode(errors=_KEPT),
                found.mode,
            )
        content = _assign(text, assigned).encode(errors=_KEPT)
        self._root.make_parents(path)
        self._root.write_many([Draft(path=path, content=content, mode=mode)])

    def _refuse_unknown_locale(self, value: str) -> None:
        """Raise for a locale that was not generated here: programs would start without any."""
        language, dot, charset = value.partition(".")
        known = f"{language}.{charset.lower().replace('-', '')}" if dot else value
        if not value or value in _BUILT_IN:
            return
        locales = self._top / _LOCALES
        if any((locales / each).is_dir() for each in (value, known)):
            return
        if _has_name(locales / _ARCHIVE, known):
            return
        raise InvalidResource(
            f"this device has no locale {value}; write one that it has (locale -a), or have it generated "
            "first: install the package locales, have its line in /etc/locale.gen, and run locale-gen"
        )

    def _refuse_unknown_layout(self, value: str) -> None:
        layouts, layout = self._top / _LAYOUTS, value.partition("(")[0]
        if layout and layouts.is_dir() and not (layouts / layout).exists():
            raise InvalidResource(
                f"this device has no keyboard layout {layout}; write one that it has (ls /{_LAYOUTS})"
            )


def _has_name(archive: Path, name: str) -> bool:
    """Return whether glibc's *archive* of locales, in which names end with a zero byte, has one of this
    *name*."""
    try:
        with (
            archive.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as found,
        ):
            return found.find(b"\0" + name.encode() + b"\0") >= 0
    except (OSError, ValueError):  # none, or an empty one
        return False


def _resolve_link(root: Path, path: str) -> str:
    """Return where the link at *path* leads; *path* itself where it is no link. Raise `UnsafePath` for one
    out of /etc."""
    try:
        target = os.readlink(root / path[1:])  # noqa: PTH115 - as it stands there
    except OSError:
        return path
    led = os.path.normpath(PurePosixPath(path).parent / target)
    if not led.startswith("/etc/"):
        raise UnsafePath(f"{path} is a link to {target}; have a file there, or a link within /etc")
    return led


def _parse_assignments(text: str) -> Mapping[str, str]:
    """Return the names and values in *text*, in the form of os-release(5): with quotes or without."""
    lines = (line.strip().partition("=") for line in text.splitlines())
    return {name: value.strip("\"'") for name, is_one, value in lines if is_one}


def _assign(text: str, assigned: Mapping[str, str]) -> str:
    """Return *text* with each of *assigned* on one line of its own, once; without it where it is empty."""
    lines: list[str] = []
    left = dict(assigned)
    for line in text.splitlines(keepends=True):
        name = line.strip().partition("=")[0]
        if name not in assigned:
            lines.append(line if line.endswith("\n") else f"{line}\n")
        elif value := left.pop(name, ""):
            lines.append(_line(name, value))
    return "".join([*lines, *(_line(name, value) for name, value in left.items() if value)])


def _line(name: str, value: str) -> str:
    return f'{name}="{value}"\n' if name.startswith("XKB") else f"{name}={value}\n"

"""/dev of the device, as this process sees it: what paths in it lead to, and whether that is there.

The agent has a /dev of its own (PrivateDevices=), which has no hardware. Its unit shows it the real one
elsewhere, where it may look and, by its control group, open nothing.

Reading blocks: for a worker's thread.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from harmony_core.errors import HardwareMissing, UnsafePath

__all__ = ["Dev"]

_DEV = "/dev"
_SHOWN_AT = "/run/harmony/dev"
"""Where the agent's unit shows it the device's own /dev (BindReadOnlyPaths=)."""
_LINKS_MOST = 40


class Dev:
    """/dev beneath *root*."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._at = _DEV
        self._at = _SHOWN_AT if self.place(f"{_SHOWN_AT}/null").exists() else _DEV
        self.passed: list[str] = []
        """What was looked at. Each ends with a slash: what is watched is that the name comes and goes, not
        that it is written to, as a device is all the time."""

    def shown(self, path: str) -> str:
        """Return the path at which this process can look at the device's *path*."""
        return f"{self._at}{path.removeprefix(_DEV)}"

    def place(self, path: str) -> Path:
        """Return the path at which this process finds *path*, which is as `shown` returns it."""
        return self._root / path.lstrip("/")

    def resolve(self, source: str, resource: str) -> str:
        """Return the path without links to which *source*, a path below /dev, leads.

        Raise `HardwareMissing` where nothing is there, `UnsafePath` where it leads out of /dev.
        """
        ahead = list(reversed(PurePosixPath(source).parts[2:]))
        here, links = PurePosixPath(_DEV), 0
        while ahead:
            part = ahead.pop()
            if part == "..":
                here = here.parent
                continue
            path = str(here / part)
            if not path.startswith(f"{_DEV}/"):
                raise UnsafePath(
                    f"{source} leads out of {_DEV}, to {path}; name the device itself",
                    resource=resource,
                )
            self.passed.append(f"{self.shown(path)}/")
            try:
                mode = self.place(self.shown(path)).lstat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                raise _missing(source, path, resource) from None
            if not stat.S_ISLNK(mode):
                here = PurePosixPath(path)
                continue
            links += 1
            if links > _LINKS_MOST:
                raise UnsafePath(f"{source} is a circle of links", resource=resource)
            target = PurePosixPath(os.readlink(self.place(self.shown(path))))  # noqa: PTH115 - with dots
            if target.is_absolute():
                here, target = PurePosixPath("/"), target.relative_to("/")
                if target.parts[:1] == ("dev",):
                    here, target = PurePosixPath(_DEV), target.relative_to("dev")
            ahead.extend(reversed(target.parts))
        return str(here)


def _missing(source: str, path: str, resource: str) -> HardwareMissing:
    what = source if path == source else f"{source} leads to {path}, which"
    is_not = "is not there" if path == source else "is not there any more"
    return HardwareMissing(
        f"{what} {is_not}; plug the device in, or correct its path (ls -l {_DEV}): this goes on by itself "
        "as soon as it is there",
        path=source,
        resource=resource,
    )

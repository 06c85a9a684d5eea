"""What of a unit file would have no effect: what systemd ignores, and limits that the kernel cannot keep.

systemd starts such a unit all the same, with a warning in its journal. So it is asked before anything is
written: `systemd-analyze verify` reads a file as systemd on this device does, and says what it ignores.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence

from harmony_core.errors import CapabilityError, InvalidResource, UnitFailed
from harmony_core.resources import SystemdUnit
from harmony_pi_topology.common.programs import run_program
from harmony_pi_topology.posix.root import Root

__all__ = ["UnitVerifier"]

_WITHIN_S = 10.0
_OUTPUT_BYTES = 64 * 1024
_TOLD_MOST = 5
_CONTROLLERS = "/sys/fs/cgroup/cgroup.controllers"
_CONTROLLERS_BYTES = 4096
_IGNORED = re.compile(
    r"^/\S*/(?P<unit>[^/\s]+):(?P<line>\d+): (?P<what>.+(?:[,.;] ignoring\b|\bis ignored\b).*)$",
    re.IGNORECASE,
)
"""What is left out of a file, with its line. Other messages are of what else the unit needs, and may come
later, or of texts that are taken as they are (unknown escape sequences)."""
_LIMIT = re.compile(
    r"^[ \t]*((?:Startup|Default)?Memory(?:Limit|Max|High|Low|Min|SwapMax|ZSwapMax))[ \t]*=[ \t]*(\S*)",
    re.MULTILINE,
)


class UnitVerifier:
    """Judges unit files before they are written. *command* is how `systemd-analyze` is called here."""

    def __init__(
        self,
        root: Root,
        command: Sequence[str] = ("systemd-analyze",),
        *,
        within_s: float = _WITHIN_S,
    ) -> None:
        self._root = root
        self._command = command
        self._within_s = within_s
        self._turn = asyncio.Lock()
        """One file at a time: a first push has many."""

    async def verify(self, unit: SystemdUnit) -> None:
        """Raise `InvalidResource` where systemd ignores a part of the file of *unit*, and `UnitFailed` where
        that limits its memory and this kernel cannot. What cannot be asked here is not judged."""
        content = unit.content or ""
        async with self._turn:
            ignored = await self._find_ignored(unit.name, content)
        if ignored:
            more = f"; {len(ignored) - _TOLD_MOST} more" if len(ignored) > _TOLD_MOST else ""
            raise InvalidResource(
                f"systemd on this device ignores a part of {unit.name}: "
                f"{'; '.join(ignored[:_TOLD_MOST])}{more}; correct it, or leave it out",
                resource=unit.id,
            )
        # The last of several counts, and an empty one takes back those before it.
        limits = [
            name for name, value in dict(_LIMIT.findall(content)).items() if _limits(name, value)
        ]
        if limits and not await asyncio.to_thread(self._can_limit_memory):
            raise UnitFailed(
                f"{unit.name} has {limits[0]}=, and this kernel limits no memory; Raspberry Pi OS needs "
                "cgroup_enable=memory in /boot/firmware/cmdline.txt, and a reboot; or leave it out",
                resource=unit.id,
            )

    async def _find_ignored(self, name: str, content: str) -> list[str]:
        """Return what systemd ignores of *content*, in its own words."""
        # It takes no pipe, and a file on the disk would be left behind by an agent that is killed.
        with os.fdopen(os.memfd_create("unit"), "w+b") as file:
            file.write(content.encode())
            file.seek(0)
            what = ("verify", "--man=no", "--recursive-errors=no", f"/dev/stdin:{name}")
            try:
                async with asyncio.timeout(self._within_s):
                    output, _ = await run_program(
                        [*self._command, *what],
                        max_bytes=_OUTPUT_BYTES,
                        stdin=file,
                        stderr=asyncio.subprocess.STDOUT,
                    )
            except (TimeoutError, OSError):
                return []
        found = (_IGNORED.match(each) for each in output.decode(errors="replace").splitlines())
        return [
            f"line {each['line']}: {each['what']}"
            for each in found
            if each and each["unit"] == name
        ]

    def _can_limit_memory(self) -> bool:
        try:
            found = self._root.read(_CONTROLLERS, max_bytes=_CONTROLLERS_BYTES)
        except (CapabilityError, FileNotFoundError):
            return True
        return b"memory" in found.split()


def _limits(name: str, value: str) -> bool:
    """Return whether the setting *name* asks anything of the kernel by *value*."""
    is_guarantee = name.endswith(("Low", "Min"))
    return value not in ({"", "0"} if is_guarantee else {"", "infinity"})

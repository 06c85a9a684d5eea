"""nftables, as root's own units ask and change it: the reconciler behind `FirewallHost`.

The agent may not touch the network of the kernel; systemd runs nft for it, each time in a transient unit, and
what nft lists is left in /run/harmony/firewall. How the kernel would list what is wished for, it says itself:
that is loaded in a network of its own, in which nobody else is.

A trial is a timer of systemd's, which nobody can kill: what is there is kept in a file, the timer is set,
and only then is loaded what is wished for. When it elapses, what was kept is loaded, if that is still there.
Whoever commits takes the file away; whoever comes second to it, we or the timer's unit, finds it gone.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from harmony_core.errors import CapabilityError, CapabilityUnavailable, TimedOut
from harmony_core.reconciler import Availability, OnChange, Reachability, Reconciler, Records
from harmony_core.resources import SystemdUnit, UnitState
from harmony_core.unit_text import script
from harmony_pi_topology.common.log_tail import printable
from harmony_pi_topology.common.worker import Worker
from harmony_pi_topology.systemd.sdbus import (
    ANSWER_WITHIN_S,
    FoundJob,
    Properties,
    SystemdBus,
    exec_start,
)
from harmony_pi_topology.systemd.waker import Waker

from .listening import read_listening
from .reconciler import Firewalls, Listed
from .rules import LOAD, TABLE, UNIT

__all__ = ["NftablesFirewalls"]

_DIRECTORY: Final = "/run/harmony/firewall"
_FOUND: Final = "found"
_WANTED: Final = "wanted"
_ERROR: Final = "error"
_DEED: Final = "harmony-firewall-deed.service"
_TIMER: Final = "harmony-firewall-undo.timer"
_PUTTING_BACK: Final = "harmony-firewall-undo.service"
_ENDS_WITHIN_S: Final = 20.0
_LOOK_AGAIN_S: Final = 0.01
_LOOK_LAST_S: Final = 0.2
_FILE_MOST: Final = 1024 * 1024
_ERROR_MOST: Final = 1024
_ACCURACY_US: Final = 100_000
_NOTICE: Final = 5
"""Of syslog(3)."""

# Nothing is there, or what there is lies in the file; anything else that nft says is an error.
_LIST: Final = f"""
list() {{
    nft $2 list table {TABLE} >"$1.new" 2>"$1.error" || {{
        grep -q 'No such file or directory' "$1.error" || {{ cat "$1.error" >&2; exit 1; }}
        rm -f "$1.new" "$1"
        return 0
    }}
    mv "$1.new" "$1"
}}
"""
_LOOK: Final = f"""
cd {_DIRECTORY}
{_LIST}
list {_FOUND} --stateless
test -n "$1" || exit 0
printf %s "$1" | unshare --net sh -c 'nft -f - && nft --stateless list table {TABLE}' >{_WANTED}
"""
# What cannot be loaded again is left out: so the device is reached.
_PUT_BACK: Final = f"""
put_back() {{
    nft -f "$1" || nft delete table {TABLE} || true
    rm -f "$1"
}}
"""
# What is still on trial, by an agent that was killed before it had noted it, is put back before: it has never
# been confirmed, and is nothing to be kept.
_KEEP: Final = f"""
cd {_DIRECTORY}
{_LIST}
{_PUT_BACK}
rm -f trial-*.new begun-* kept
for left in trial-* undo-*; do test ! -e "$left" || put_back "$left"; done
: >"begun-$1"
list kept ''
{{ printf 'table {TABLE}\\ndelete table {TABLE}\\n'; test ! -e kept || cat kept; }} >"trial-$1.new"
mv "trial-$1.new" "trial-$1"
"""
# Of two who take a file away, one finds it gone.
_UNDO: Final = f"""
cd {_DIRECTORY}
{_PUT_BACK}
mv "trial-$1" "undo-$1" 2>/dev/null || test -e "undo-$1" || exit 0
put_back "undo-$1"
"""
_REPLACE: Final = f"""
cd {_DIRECTORY}
{LOAD}
rm -f trial-* undo-*
"""


class NftablesFirewalls(Firewalls):
    """The systemd on the bus at *address*, or this machine's; *root* is where its files are read.

    *units* are of that systemd, and *unit_records* what they note.
    """

    def __init__(
        self,
        units: Reconciler[SystemdUnit, UnitState],
        *,
        records: Records,
        unit_records: Records,
        reachability: Reachability,
        address: str | None = None,
        root: str | Path = "/",
        answer_within_s: float = ANSWER_WITHIN_S,
    ) -> None:
        self._bus = SystemdBus(address, waker=Waker(root), answer_within_s=answer_within_s)
        self._nftables = _Nftables(self._bus, Path(root))
        super().__init__(self._nftables, units, records, unit_records, reachability)

    async def availability(self) -> Availability:
        """Return whether systemd answers."""
        return await self.units.availability()

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Watch the firewall's unit, and the one that deletes all rules. What somebody changes with nft is
        found by the periodic pass."""

        def hear(unit: str | None) -> None:
            for key in keys if unit is not None else (None,):
                on_change(key)

        await self.units.watch([UNIT, "nftables.service"] if keys else [], hear)

    async def close(self) -> None:
        await self.units.close()
        self._bus.close()
        self._nftables.close()


class _Nftables:
    """A `PacketFilter`."""

    def __init__(self, bus: SystemdBus, root: Path) -> None:
        self._bus = bus
        self._at = root / _DIRECTORY.lstrip("/")
        # Who looks at another machine's root is in no network of it.
        self._sockets = root / "proc" / ("self" if root == Path("/") else "1") / "net"
        self._files = Worker("firewall", threads=1, timeout_s=_ENDS_WITHIN_S)

    async def look(self, rules: str | None) -> Listed:
        await self._run("looking at what it filters", script(_LOOK, rules or ""))
        found = await self._files.run(self._read, _FOUND)
        if rules is None:
            return Listed(found=found)
        wanted = await self._files.run(self._read, _WANTED) or ""
        listening = await self._files.run(read_listening, self._sockets) if found != wanted else ()
        return Listed(found=found, wanted=wanted, listening=frozenset(listening))

    async def load(self, rules: str) -> None:
        await self._end_trial()  # of an agent that was killed before it had noted it
        await self._run("loading rules", script(_REPLACE, rules))

    async def begin(self, rules: str, within_s: int) -> str:
        trial = secrets.token_hex(8)
        await self._end_trial()
        await self._run("keeping what it filters", script(_KEEP, trial))
        undo: Properties = [
            ("Description", ("s", "Harmony's firewall: putting back what was there")),
            ("Type", ("s", "oneshot")),
            exec_start(script(_UNDO, trial)),
        ]
        timer: Properties = [
            ("Description", ("s", f"Harmony's firewall, on trial for {within_s} s")),
            await self._bus.ask_elapsing(within_s),
            ("AccuracyUSec", ("t", _ACCURACY_US)),
            ("RemainAfterElapse", ("b", False)),
        ]
        await self._bus.run(_TIMER, timer, [(_PUTTING_BACK, undo)])
        try:
            await self._run("loading rules", script(LOAD, rules))
        except CapabilityError:
            await self.roll_back(trial)
            raise
        return trial

    async def waits(self, trial: str) -> bool:
        is_kept = await self._files.run((self._at / f"trial-{trial}").exists)
        if is_kept and (await self._bus.look(_TIMER)).active == "active":
            return True
        await self.roll_back(trial)
        return False

    async def is_of_this_boot(self, trial: str) -> bool:
        return await self._files.run((self._at / f"begun-{trial}").exists)

    async def commit(self, trial: str) -> bool:
        try:
            await self._files.run((self._at / f"trial-{trial}").unlink)
        except FileNotFoundError:
            return False
        await self._end_trial()
        return True

    async def roll_back(self, trial: str) -> None:
        await self._end_trial()
        await self._run("putting back what was there", script(_UNDO, trial))

    async def _end_trial(self) -> None:
        """Stop the rollback that systemd is to do; where that has begun, it may have to be completed."""
        for unit in (_TIMER, _PUTTING_BACK):
            await self._forget(unit)

    def close(self) -> None:
        self._files.close()

    async def _run(self, what: str, command: Sequence[str]) -> None:
        """Run *command* as root, to its end."""
        await self._files.run(self._make_directory)
        properties: Properties = [
            ("Description", ("s", f"Harmony's firewall: {what}")),
            ("Type", ("s", "exec")),
            exec_start(command),
            # Kept when it has ended, so that we see how.
            ("RemainAfterExit", ("b", True)),
            ("LogLevelMax", ("i", _NOTICE)),  # it is run at every look
            ("RuntimeMaxUSec", ("t", round(_ENDS_WITHIN_S * 1e6))),
            ("StandardInput", ("s", "null")),
            ("StandardErrorFileToTruncate", ("s", f"{_DIRECTORY}/{_ERROR}")),
        ]
        await self._forget(_DEED)  # of an agent that was killed
        await self._bus.run(_DEED, properties, [])
        try:
            found = await self._await_end(_DEED)
            if found is None or found.result != "success":
                raise await self._make_error(what)
        finally:
            await self._forget(_DEED)

    async def _await_end(self, unit: str) -> FoundJob | None:
        """Return the state of *unit* once it has ended; None where systemd knows nothing of it."""
        wait_s = _LOOK_AGAIN_S
        try:
            async with asyncio.timeout(_ENDS_WITHIN_S):
                while (found := await self._bus.look_at_job(unit)) is not None:
                    if found.has_ended:
                        break
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, _LOOK_LAST_S)
        except TimeoutError:
            raise TimedOut(
                f"{unit} did not end within {_ENDS_WITHIN_S:g} s; it is tried again later"
            ) from None
        return found

    async def _forget(self, unit: str) -> None:
        try:
            async with asyncio.timeout(_ENDS_WITHIN_S):
                await self._bus.forget(unit)
        except TimeoutError:
            raise TimedOut(
                f"{unit} was not ended within {_ENDS_WITHIN_S:g} s; it is tried again later"
            ) from None

    async def _make_error(self, what: str) -> CapabilityUnavailable:
        said = await self._files.run(self._read, _ERROR) or "it has said nothing"
        return CapabilityUnavailable(
            f"{what}: nft has failed: {printable(said[:_ERROR_MOST].encode())}; see on the device whether "
            "`nft list ruleset` works as root; if not: apt-get install nftables, and modprobe nf_tables"
        )

    def _make_directory(self) -> None:
        self._at.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._at.mkdir(mode=0o700, exist_ok=True)

    def _read(self, name: str) -> str | None:
        try:
            with (self._at / name).open(encoding="utf-8", errors="replace") as file:
                return file.read(_FILE_MOST)
        except FileNotFoundError:
            return None

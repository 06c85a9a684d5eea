"""Rules of udev, as files in one directory: the reconciler behind `UdevHost`.

    look at the file -> note that it is ours -> write it -> udevadm control --reload -> note that it was read

The note comes first, so that one who is killed on the way finds the file ours; that udev was told to read it
is noted last, so that the next one tells it once more.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from harmony_core import Change
from harmony_core.errors import CapabilityUnavailable, NotOurs, TimedOut, WriteFailed
from harmony_core.reconciler import Availability, Records, Unwatched
from harmony_core.resources import resource_id
from harmony_core.steps import Did, Removed, Step, Wrote

from .rule import DIRECTORY, RuleAt, UdevRule

__all__ = ["UdevRules"]

RELOADED = Did("reloaded")
_ANSWERS_WITHIN_S = 10.0
T = TypeVar("T")
_Work: TypeAlias = Callable[[], Coroutine[Any, Any, Change]]


class UdevRules(Unwatched):
    """The rules below *root*; *udevadm* is the program that tells udev to read them."""

    def __init__(self, *, root: Path, records: Records, udevadm: str) -> None:
        self._directory = root / DIRECTORY[1:]
        self._records = records
        self._udevadm = udevadm
        self._one_at_a_time = asyncio.Lock()

    @property
    def resource_class(self) -> type[UdevRule]:
        return UdevRule

    async def converge(
        self, resources: Sequence[UdevRule], *, apply: bool
    ) -> Sequence[Change | Exception]:
        """As `Reconciler.converge`."""
        return await self._each([partial(self._converged, each, apply=apply) for each in resources])

    async def observe(self, key: str) -> RuleAt | None:
        """As `Reconciler.observe`: the file as it is, and whether udev was told of just that."""
        found = self._sha256(key)
        if found is None:
            return None
        noted = self._records.get(_rid(key)) or {}
        return RuleAt(sha256=found, is_read=noted.get("read") == found)

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        """As `Reconciler.remove`."""
        return await self._each([partial(self._removed, each, apply=apply) for each in keys])

    async def availability(self) -> Availability:
        """Ask udev itself, which answers a ping."""
        try:
            await self._ask("control", "--ping")
        except (CapabilityUnavailable, TimedOut) as error:
            return Availability(available=False, reason=error.message)
        return Availability(available=True)

    async def _each(self, work: Sequence[_Work]) -> list[Change | Exception]:
        """Do all of *work* in turn, each to its end, whoever is cancelled meanwhile."""
        results: list[Change | Exception] = []
        async with self._one_at_a_time:
            for each in work:
                try:
                    results.append(await _to_its_end(each()))
                except (CapabilityUnavailable, NotOurs, TimedOut, WriteFailed) as error:
                    results.append(error)
        return results

    async def _converged(self, rule: UdevRule, *, apply: bool) -> Change:
        before = await self.observe(rule.name)
        wanted = hashlib.sha256(rule.content.encode()).hexdigest()
        noted = self._records.get(rule.id)
        if before is not None and noted is None:
            raise NotOurs(
                f"{self._path(rule.name)} is there and was not made by Harmony; choose another name, "
                "or delete it by hand",
                resource=rule.id,
            )
        if before == RuleAt(sha256=wanted, is_read=True):
            return Change(resource=rule.id, before=before, after=before)
        is_written = before is None or before.sha256 != wanted
        steps: tuple[Step, ...] = (Wrote("its file"), RELOADED) if is_written else (RELOADED,)
        if not apply:
            planned = RuleAt(sha256=wanted, is_read=True)
            return Change(resource=rule.id, steps=steps, before=before, after=planned)
        if is_written:
            await self._records.put(rule.id, {"read": None})
            await asyncio.to_thread(self._write, rule.name, rule.content)
        await self._ask("control", "--reload")
        await self._records.put(rule.id, {"read": wanted})
        after = await self.observe(rule.name)
        return Change(resource=rule.id, steps=steps, before=before, after=after)

    async def _removed(self, key: str, *, apply: bool) -> Change:
        before = await self.observe(key)
        noted = self._records.get(_rid(key))
        if noted is None and before is not None:
            raise NotOurs(
                f"{self._path(key)} was not made by Harmony; delete it by hand if it is to go",
                resource=_rid(key),
            )
        if noted is None:
            return Change(resource=_rid(key))
        if apply:
            await asyncio.to_thread(self._path(key).unlink, missing_ok=True)
            await self._ask("control", "--reload")
            await self._records.forget(_rid(key))
        return Change(resource=_rid(key), steps=(Removed(), RELOADED), before=before)

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.rules"

    def _sha256(self, key: str) -> str | None:
        try:
            return hashlib.sha256(self._path(key).read_bytes()).hexdigest()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WriteFailed(f"{self._path(key)}: {error.strerror}", resource=_rid(key)) from error

    def _write(self, key: str, content: str) -> None:
        path, fresh = self._path(key), self._directory / f".{key}.new"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("w") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError as error:
            raise WriteFailed(
                f"{path}: {error.strerror}; look at the disk, or at what stands there",
                resource=_rid(key),
            ) from error

    async def _ask(self, *words: str) -> None:
        await asyncio.to_thread(self._asked, *words)

    def _asked(self, *words: str) -> None:
        said = f"{self._udevadm} {' '.join(words)}"
        try:
            asked = subprocess.run(
                [self._udevadm, *words], capture_output=True, check=False, timeout=_ANSWERS_WITHIN_S
            )
        except OSError as error:
            raise CapabilityUnavailable(f"{said}: {error.strerror}; install udev") from error
        except subprocess.TimeoutExpired:
            raise TimedOut(f"{said} took longer than {_ANSWERS_WITHIN_S:.0f} s") from None
        if asked.returncode:
            why = asked.stderr.decode(errors="replace").strip() or f"exit code {asked.returncode}"
            raise CapabilityUnavailable(f"{said}: {why}; look at: systemctl status systemd-udevd")


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Let *work* end before a cancellation goes on: what it does would land all the same."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _rid(key: str) -> str:
    return resource_id(UdevRule.resource_type, key)

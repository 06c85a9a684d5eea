"""By which device and inode the kernel knows paths: what is asked at one time is answered in one thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from harmony_core.errors import CapabilityError
from harmony_pi_topology.posix.root import Root

from .batching import Batcher
from .path_calls import PathCalls

__all__ = ["PathIdentities"]

_Answer: TypeAlias = frozenset[str] | CapabilityError


class PathIdentities:
    """Asks *root* in the threads of *calls*."""

    def __init__(self, root: Root, calls: PathCalls) -> None:
        self._root = root
        self._calls = calls
        self._gathered: Batcher[str, _Answer] = Batcher(self._look)

    async def look(self, path: str) -> frozenset[str]:
        """Return the identities of *path*; see `Root.identities`. Raise `CapabilityError`, also where the
        file system does not answer."""
        (answer,) = await self._gathered.submit([path])
        if isinstance(answer, CapabilityError):
            raise answer
        return answer

    async def _look(self, paths: Sequence[str]) -> Sequence[_Answer]:
        return await self._calls.sparing(
            [(path,) for path in paths],
            lambda some: self._calls.run(
                self._root.identities_many, [paths[index] for index in some]
            ),
        )

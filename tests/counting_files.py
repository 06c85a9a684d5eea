"""Made-up files that count how often each content was written: what is done twice shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harmony_core.change import Change
from harmony_core.resources import File
from harmony_core.testing import FakeFiles

__all__ = ["CountingFiles"]


class CountingFiles(FakeFiles):
    """Counts how often each content was written to each path."""

    def __init__(self) -> None:
        super().__init__()
        self.written: Counter[tuple[str, bytes]] = Counter()

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        before = [self.read(each.path) for each in resources]
        found = await super().converge(resources, apply=apply)
        for each, old in zip(resources, before, strict=True):
            new = self.read(each.path)
            if new is not None and new != old:
                self.written[each.path, new] += 1
        return found

"""TenFilesScore: ten files at once. Only benchmarks know it: a hundred of them are a thousand resources.

An agent knows it where `registered` says so: by the entry point of a distribution of its own, as with any
other kind, in a directory that goes with the bed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from harmony_core import File, HasFiles, Inventory, Outcome, Score, impl, outcome_of
from harmony_core.paths import AbsolutePath
from harmony_core.wire.manifest import SerializedScore

__all__ = ["FILES", "THOUSAND", "TenFilesScore", "registered"]

FILES = 10
"""How many each Score has."""
_TREE = Path(__file__).parent.parent
_METADATA = "Metadata-Version: 2.1\nName: harmony-ten-files\nVersion: 1\n"
_ENTRY_POINTS = f"[harmony]\nten_files = {__name__}\n"


class TenFilesScore(Score[HasFiles]):
    """Ten files below ``directory``, of the same content."""

    directory: AbsolutePath
    content: str

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.files.ensure(*self._files))

    @cached_property
    def _files(self) -> list[File]:
        return [
            File(path=f"{self.directory}/{number}", content=self.content.encode())
            for number in range(FILES)
        ]


@impl
def harmony_scores() -> Iterable[type[Score[Any]]]:
    """Harmony's hook."""
    return [TenFilesScore]


def registered(directory: Path) -> Mapping[str, str]:
    """Make the distribution in *directory*; the environment in which an agent finds it."""
    told = directory / "harmony_ten_files-1.dist-info"
    told.mkdir(parents=True, exist_ok=True)
    (told / "METADATA").write_text(_METADATA)
    (told / "entry_points.txt").write_text(_ENTRY_POINTS)
    return {"PYTHONPATH": os.pathsep.join(map(str, (directory, _TREE)))}


THOUSAND = tuple(
    SerializedScore(
        id=f"files-{number:03}",
        kind=TenFilesScore.kind,
        version=1,
        spec={"directory": f"/etc/app/{number:03}", "content": f"{'x' * 100}{number}\n"},
    )
    for number in range(100)
)
"""A thousand files, of a hundred Scores."""

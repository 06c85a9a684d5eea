"""LinkScore: one symbolic link."""

from __future__ import annotations

from pydantic import Field

from harmony_core import HasLinks, Inventory, Outcome, Score, SymbolicLink, outcome_of
from harmony_core.paths import AbsolutePath
from harmony_core.resources import LinkTarget

__all__ = ["LinkScore"]


class LinkScore(Score[HasLinks]):
    """At ``path`` is a symbolic link to ``target``.

    A link that was there before is taken over, and leads again to what it led to in the end. One that Harmony
    made goes when the Score is removed. A file or directory that is in the way is a failure, and stays.
    """

    path: AbsolutePath = Field(description="Where: an absolute path, without links on the way.")
    target: LinkTarget = Field(
        description="What it leads to: an absolute path, or one from its own directory. It need not be there."
    )

    async def interpret(self, inventory: Inventory, topology: HasLinks) -> Outcome:  # noqa: ARG002
        return outcome_of(
            await topology.links.ensure(SymbolicLink(path=self.path, target=self.target))
        )

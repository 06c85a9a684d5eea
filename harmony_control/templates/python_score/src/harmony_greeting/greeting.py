"""GreetingScore: who logs in to the device is greeted."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from harmony_core import File, HasFiles, Inventory, Outcome, Score, outcome_of

__all__ = ["GreetingScore"]


class GreetingScore(Score[HasFiles]):
    """Who logs in reads these words, and which device it is."""

    words: Annotated[str, StringConstraints(min_length=1)] = Field(
        description="What they are greeted with."
    )

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        text = f"{self.words}\nThis is {inventory.hostname}.\n"
        return outcome_of(
            await topology.files.ensure(File(path="/etc/motd", content=text.encode()))
        )

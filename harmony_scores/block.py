"""BlockScore: a part of a text file that belongs to others."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from harmony_core import Block, HasBlocks, Inventory, Outcome, Score, outcome_of
from harmony_core.paths import AbsolutePath
from harmony_core.resources import (
    BlockLines,
    BlockName,
    BlockPart,
    BlockText,
    BootText,
    CommentPrefix,
    SectionName,
    Setting,
    SettingKey,
    Word,
    WordValue,
)

from ._whole import refused_as_fields

__all__ = ["BlockScore"]


class BlockScore(Score[HasBlocks]):
    """A part of the file at ``path`` is as desired: lines between two markers, one setting, or one word.

    Every other byte of the file stays, and others may change it. What the part was before comes back when the
    Score goes. Several Scores may have parts of one file; a FileScore of it conflicts with them.
    """

    path: AbsolutePath = Field(description="The file: an absolute path, without links on the way.")
    name: BlockName | None = Field(
        default=None, description="With lines: what the markers are named by, as in lab-hosts."
    )
    lines: BlockText | None = Field(
        default=None, description="Lines that stand between two markers, which are comments."
    )
    comment: CommentPrefix = Field(
        default="#", description="With lines: what begins a comment in that file."
    )
    section: SectionName | None = Field(
        default=None,
        description="With key: the section that it is in; what is before the first header unless set.",
    )
    key: SettingKey | None = Field(default=None, description="The name of one setting, as in NTP.")
    word: BootText | None = Field(
        default=None,
        description="A word of the file's only line, or with value what stands before its =.",
    )
    value: str | None = Field(
        default=None, description="With key or word: what stands behind the =.", max_length=1024
    )

    @model_validator(mode="after")
    def _is_one_part(self) -> Self:
        if sum(each is not None for each in (self.lines, self.key, self.word)) != 1:
            raise ValueError("give exactly one of lines, key and word")
        for field, needs in (("name", "lines"), ("section", "key")):
            if getattr(self, field) is not None and getattr(self, needs) is None:
                raise ValueError(f"{field} goes with {needs}; leave it out")
        if self.lines is not None and self.value is not None:
            raise ValueError("value goes with key or word; leave it out")
        if self.lines is not None and self.name is None:
            raise ValueError("name is missing; add what the markers are to be named by")
        if self.key is not None and self.value is None:
            raise ValueError("value is missing; add what the setting is to be")
        with refused_as_fields():
            self._part()
        return self

    async def interpret(self, inventory: Inventory, topology: HasBlocks) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.blocks.ensure(Block(path=self.path, part=self._part())))

    def _part(self) -> BlockPart:
        if self.lines is not None:
            return BlockLines(name=self.name or "", text=self.lines, comment=self.comment)
        if self.key is not None:
            return Setting(section=self.section, key=self.key, value=self.value or "")
        if self.value is not None:
            return WordValue(name=self.word or "", value=self.value)
        return Word(word=self.word or "")

"""BootConfigScore: what a Raspberry Pi boots with, in config.txt and cmdline.txt."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from harmony_core import Block, BlockPart, HasBlocks, Inventory, Outcome, Score, outcome_of
from harmony_core.change import Changes
from harmony_core.outcome import Noop, Success
from harmony_core.resources import (
    BlockAt,
    BootText,
    Line,
    SectionName,
    Setting,
    SettingKey,
    Word,
    WordValue,
    in_words,
)

from ._whole import refused_as_fields

__all__ = ["BootConfigScore"]

_EVERY_BOARD = "all"
Value = Annotated[str, StringConstraints(max_length=1024)]
Overlay = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(,[!-~]+)*$", max_length=256),
    in_words("write an overlay with its parameters, as in w1-gpio,gpiopin=4"),
]
ParameterName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64),
    in_words("write a parameter's name, as in i2c_arm"),
]


class BootConfigScore(Score[HasBlocks]):
    """A Raspberry Pi boots with these settings of config.txt and these words of cmdline.txt.

    Every other line and word stays. The file as it was before the last change is kept beside it, as
    config.txt.harmony-previous. While the device runs with what it was booted with, the Score's message
    says RebootRequired: a RebootScore has it booted anew. Words that a boot has not brought onto the kernel's
    line are a failure. What was there before comes back when the Score goes.
    """

    directory: Literal["/boot/firmware", "/boot"] = Field(
        default="/boot/firmware", description="Where the two files are: /boot before Debian 12."
    )
    section: SectionName = Field(
        default=_EVERY_BOARD,
        description="For which boards the settings of config.txt are, as in pi4; for every one unless set.",
    )
    dtparam: dict[ParameterName, Value] = Field(
        default_factory=dict, description='Parameters of the device tree, as in i2c_arm: "on".'
    )
    dtoverlay: tuple[Overlay, ...] = Field(
        default=(), description="Overlays with their parameters, as in w1-gpio,gpiopin=4."
    )
    settings: dict[SettingKey, Value] = Field(
        default_factory=dict, description='Other settings of config.txt, as in gpu_mem: "64".'
    )
    lines: tuple[BootText, ...] = Field(
        default=(), description="Other lines of config.txt that may stand there several times."
    )
    words: tuple[BootText, ...] = Field(
        default=(),
        description="Words of cmdline.txt that may stand there several times, as in quiet.",
    )
    values: dict[SettingKey, Value] = Field(
        default_factory=dict,
        description="Values of words that stand in cmdline.txt once, as in cgroup_enable: memory.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        with refused_as_fields():
            if not self._blocks():
                raise ValueError(
                    "is empty; give dtparam, dtoverlay, settings, lines, words or values"
                )
        return self

    async def interpret(self, inventory: Inventory, topology: HasBlocks) -> Outcome:  # noqa: ARG002
        changes = await topology.blocks.ensure(*self._blocks())
        return _with_message(outcome_of(changes), changes)

    def _blocks(self) -> list[Block]:
        config, cmdline = f"{self.directory}/config.txt", f"{self.directory}/cmdline.txt"
        named = {f"dtparam={name}": value for name, value in self.dtparam.items()}
        where = {"section": self.section, "and_top": self.section == _EVERY_BOARD}
        lines = (*(f"dtoverlay={each}" for each in self.dtoverlay), *self.lines)
        in_config: list[BlockPart] = [
            *(
                Setting.model_validate({**where, "key": key, "value": value})
                for key, value in {**named, **self.settings}.items()
            ),
            *(Line.model_validate({**where, "line": line}) for line in dict.fromkeys(lines)),
        ]
        in_cmdline: list[BlockPart] = [
            *(WordValue(name=name, value=value) for name, value in self.values.items()),
            *(Word(word=word) for word in dict.fromkeys(self.words)),
        ]
        parts = [(config, part) for part in in_config] + [(cmdline, part) for part in in_cmdline]
        return [
            Block(path=path, part=part, create=False, keep_previous=True, read_at_boot=True)
            for path, part in parts
        ]


def _with_message(outcome: Success | Noop, changes: Changes) -> Success | Noop:
    awaiting = [
        each.resource.rpartition("#")[2].partition(":")[2]
        for each in changes
        if isinstance(each.after, BlockAt) and each.after.awaits_reboot
    ]
    if not awaiting:
        return outcome
    message = (
        f"RebootRequired: {', '.join(awaiting)} is in force from the next boot; reboot the device, or push "
        "a RebootScore"
    )
    return Success(message=message) if isinstance(outcome, Success) else Noop(message=message)

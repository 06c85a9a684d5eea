"""A rule of udev, and how it is found."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

import attrs
from pydantic import Field, StringConstraints

from harmony_core import Privilege, Resource, State

__all__ = ["DIRECTORY", "RuleAt", "UdevRule"]

DIRECTORY = "/etc/udev/rules.d"
_RUNS_A_PROGRAM = re.compile(r"\b(RUN|PROGRAM|IMPORT\{program\})")


class UdevRule(Resource):
    """The file NAME.rules in /etc/udev/rules.d has this content, and udev has read it."""

    resource_type: ClassVar[str] = "udevrule"

    name: Annotated[str, StringConstraints(pattern=r"^[0-9]{2}-[a-z0-9-]{1,48}$")] = Field(
        description="The file's name without .rules, as in 70-meter: rules are read in this order."
    )
    content: str = Field(description="The rule, or several, one a line.")

    @property
    def key(self) -> str:
        return self.name

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...]:
        return (f"{DIRECTORY}/{key}.rules",)

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...]:
        return ()

    @property
    def privileges(self) -> frozenset[Privilege]:
        runs = _RUNS_A_PROGRAM.search(self.content) is not None
        return frozenset({"run-as-root"}) if runs else frozenset()

    @classmethod
    def survives_reboot(cls, key: str) -> bool:
        return True


@attrs.frozen(kw_only=True)
class RuleAt(State):
    """A file of rules is there. ``is_read``: udev was told to read it since it was written."""

    sha256: str
    is_read: bool

    @property
    def is_ready(self) -> bool:
        return self.is_read

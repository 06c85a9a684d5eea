"""What a Score's fields were in an earlier version, and what they have become.

::

    class LampV1(FormerSpec["LampScore"]):
        version = 1
        watts: int

        def upgrade(self) -> LampScore:
            return LampScore(lumens=self.watts * 80)

    class LampScore(Score[HasFiles]):
        version = 2
        formers = (LampV1,)
        lumens: int

A device that knows version 2 then goes on reading what was signed as version 1. The steps may be several:
``upgrade`` may answer with the next former version.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

__all__ = ["FormerSpec"]

NextT_co = TypeVar("NextT_co", bound=BaseModel, covariant=True)


class FormerSpec(BaseModel, ABC, Generic[NextT_co]):
    """The fields of one earlier version of a kind, listed in its ``formers``."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    version: ClassVar[int]

    @abstractmethod
    def upgrade(self) -> NextT_co:
        """Return the same specification in today's fields, or in those of a later `FormerSpec`. Change
        nothing else."""

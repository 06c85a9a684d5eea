"""How often each thing is measured."""

from __future__ import annotations

import attrs

__all__ = ["Rounds"]


@attrs.frozen(kw_only=True)
class Rounds:
    """``runs`` replaces every count; ``quick`` makes a tenth of them, and a minute ten seconds."""

    runs: int | None = None
    quick: bool = False

    def of(self, usual: int) -> int:
        """How often to do what is usually done *usual* times."""
        if self.runs is not None:
            return self.runs
        return max(2, usual // 10) if self.quick else usual

    @property
    def idle_s(self) -> float:
        """How long to watch what does nothing."""
        return 10.0 if self.quick else 60.0

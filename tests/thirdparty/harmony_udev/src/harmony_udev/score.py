"""SerialAliasScore: a USB serial adapter that always has the same name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from harmony_core import Inventory, Outcome, Score, outcome_of

from .host import HasUdev
from .rule import UdevRule

__all__ = ["SerialAliasScore"]

UsbId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}$")]


class SerialAliasScore(Score[HasUdev]):
    """The USB serial adapter of this vendor and product is /dev/ALIAS, whichever port it is plugged into."""

    alias: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")] = Field(
        description="Its name below /dev."
    )
    vendor_id: UsbId = Field(description="As lsusb shows it before the colon: 0403.")
    product_id: UsbId = Field(description="As lsusb shows it after the colon: 6001.")

    async def interpret(self, inventory: Inventory, topology: HasUdev) -> Outcome:
        rule = (
            f'SUBSYSTEM=="tty", ATTRS{{idVendor}}=="{self.vendor_id}", '
            f'ATTRS{{idProduct}}=="{self.product_id}", SYMLINK+="{self.alias}"\n'
        )
        done = await topology.udev.ensure(UdevRule(name=f"70-{self.alias}", content=rule))
        return outcome_of(done)

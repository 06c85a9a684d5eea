"""Checked by mypy and pyright, never run: a package's Score goes where its capability is, nowhere else."""

from __future__ import annotations

from harmony_udev import RuleAt, SerialAliasScore, UdevPi, UdevRule
from harmony_udev.reconciler import UdevRules

from harmony_control.fleet import Fleet
from harmony_core.reconciler import Reconciler
from harmony_scores import FileScore

meter = SerialAliasScore(alias="meter", vendor_id="0403", product_id="6001")
rules: type[Reconciler[UdevRule, RuleAt]] = UdevRules


async def pushing(fleet: Fleet) -> None:
    # accepted
    device = fleet.device("pi-1", topology=UdevPi)
    await device.push(meter)
    await device.push(FileScore(path="/etc/motd", content="hello"))
    # rejected: a Pi has it only with the package
    await fleet.device("pi-1").push(meter)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

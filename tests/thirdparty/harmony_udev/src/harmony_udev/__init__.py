"""udev rules for Harmony: a capability, and a Score that uses it, by the entry point ``harmony``."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from harmony_core import Score, impl
from harmony_core.place import Place
from harmony_core.reconciler import AnyReconciler

from .host import HasUdev, UdevHost, UdevPi
from .rule import RuleAt, UdevRule
from .score import SerialAliasScore

__all__ = ["HasUdev", "RuleAt", "SerialAliasScore", "UdevHost", "UdevPi", "UdevRule"]


@impl
def harmony_scores() -> Iterable[type[Score[Any]]]:
    """Harmony's hook: the kinds that this package adds."""
    return [SerialAliasScore]


@impl
def harmony_capabilities(place: Place) -> Mapping[str, AnyReconciler | str]:
    """Harmony's hook: what this package offers on the device at *place*, or why not."""
    udevadm = shutil.which("udevadm")
    if place.why_no_machine is not None:
        return {"UdevHost": place.why_no_machine}
    if udevadm is None:
        return {"UdevHost": f"udev is not installed; {place.remedy('apt install udev')}"}
    from .reconciler import UdevRules

    return {"UdevHost": UdevRules(root=place.root, records=place.records, udevadm=udevadm)}

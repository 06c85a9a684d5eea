"""The capability: what a Score may ask of a device with udev."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from harmony_core import Capability
from harmony_pi_topology import PiTopology

from .rule import RuleAt, UdevRule

__all__ = ["HasUdev", "UdevHost", "UdevPi"]


class UdevHost(Capability[UdevRule, RuleAt], Protocol):
    """A host whose devices are named by udev. Keys are the names of rules."""


class HasUdev(Protocol):
    """A topology with udev."""

    @property
    def udev(self) -> UdevHost: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UdevPi(PiTopology):
    """A Pi whose agent has this package: ``fleet.device("pi-1", topology=UdevPi)``."""

    udev: UdevHost

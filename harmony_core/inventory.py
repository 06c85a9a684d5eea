"""Inventory: what is known of one device. Facts are read on the device, labels are signed.

A Score reads its inventory like a plain object; what it reads is remembered, because a fact is an input:
when it changes, the Score is interpreted again. A label or fact that is missing is `FactMissing`, never
None, so that nothing is ever converged, or taken away, from ignorance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TypeVar

import attrs

from .errors import FactMissing

__all__ = ["Facts", "Inventory", "Labels"]

_T = TypeVar("_T")


@attrs.frozen(kw_only=True)
class Facts:
    """What the device says of itself. None where it could not be read."""

    model: str | None
    """Such as "Raspberry Pi 4 Model B Rev 1.4"; from the device tree, else from DMI."""
    architecture: str
    """As ``uname -m`` says it: "aarch64", "x86_64"."""
    memory_bytes: int | None
    os: str | None
    """PRETTY_NAME of os-release: "Debian GNU/Linux 13 (trixie)"."""
    kernel: str
    hostname: str
    agent_version: str
    kinds: Mapping[str, tuple[int, ...]]
    """The kinds and versions of Scores that can be interpreted here."""


class Labels(Mapping[str, str]):
    """The manifest's signed labels. ``labels["site"]`` raises `FactMissing` when there is none."""

    def __init__(self, labels: Mapping[str, str], read: set[str], missing: set[str]) -> None:
        self._labels = labels
        self._read = read
        self._missing = missing

    def __getitem__(self, name: str) -> str:
        self._read.add(f"label:{name}")
        try:
            return self._labels[name]
        except KeyError:
            self._missing.add(f"label:{name}")
            raise FactMissing(
                f"this device has no label {name!r}; set it with `harmony label AGENT {name}=VALUE`"
            ) from None

    def __contains__(self, name: object) -> bool:
        self._read.add(f"label:{name}")
        return name in self._labels

    def __iter__(self) -> Iterator[str]:
        self._read.add("label:*")
        return iter(self._labels)

    def __len__(self) -> int:
        self._read.add("label:*")
        return len(self._labels)


class Inventory:
    """One device, as a Score sees it. Remembers in ``read`` which facts were asked for."""

    def __init__(
        self, *, agent_id: str, facts: Facts, labels: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.agent_id = agent_id
        self._facts = facts
        self._given = labels
        self._read: set[str] = set()
        self._missing: set[str] = set()
        self.labels = Labels(labels, self._read, self._missing)

    @property
    def read(self) -> frozenset[str]:
        """The names of the facts and labels that were asked for."""
        return frozenset(self._read)

    def answers(self, names: Iterable[str]) -> dict[str, object]:
        """Return today's answers to those names of `read`. They are not remembered as read."""
        return {name: self._answer(name) for name in names}

    def _answer(self, name: str) -> object:
        if name == "label:*":
            return dict(self._given)
        kind, colon, label = name.partition(":")
        return self._given.get(label) if colon and kind == "label" else getattr(self._facts, name)

    @property
    def missing(self) -> frozenset[str]:
        """The names of those that were asked for and are not known, whoever caught the error."""
        return frozenset(self._missing)

    @property
    def model(self) -> str:
        return self._read_fact("model", self._facts.model)

    @property
    def architecture(self) -> str:
        return self._read_fact("architecture", self._facts.architecture)

    @property
    def memory_bytes(self) -> int:
        return self._read_fact("memory_bytes", self._facts.memory_bytes)

    @property
    def os(self) -> str:
        return self._read_fact("os", self._facts.os)

    @property
    def kernel(self) -> str:
        return self._read_fact("kernel", self._facts.kernel)

    @property
    def hostname(self) -> str:
        return self._read_fact("hostname", self._facts.hostname)

    @property
    def agent_version(self) -> str:
        return self._read_fact("agent_version", self._facts.agent_version)

    @property
    def kinds(self) -> Mapping[str, tuple[int, ...]]:
        return self._read_fact("kinds", self._facts.kinds)

    def _read_fact(self, name: str, value: _T | None) -> _T:
        self._read.add(name)
        if value is None:
            self._missing.add(name)
            raise FactMissing(
                f"this device cannot say its {name}; a Score that needs it cannot run here"
            )
        return value

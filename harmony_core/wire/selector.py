"""Selectors: which devices, by their labels. The grammar is that of Kubernetes' label selectors.

    site=attic,role in (kiosk, door),!test,owner

All requirements must be met: ``=``, ``==``, ``!=``, ``in (…)``, ``notin (…)``, ``name`` (there is such a
label), and ``!name`` (there is none). The empty text selects every device.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, TypeAlias

import attrs
from pydantic import AfterValidator, StringConstraints

from harmony_core.errors import UsageError

__all__ = ["Requirement", "Selector", "SelectorText", "parse_selector"]

_MOST_BYTES = 1_024
_MOST = 32
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?"
_VALUE = r"[^\s,()=!]+"
_REQUIREMENT = re.compile(
    rf"\s*(?:(?P<absent>!\s*)(?P<no>{_NAME})"
    rf"|(?P<name>{_NAME})\s*(?:(?P<operator>==|=|!=)\s*(?P<value>{_VALUE})?"
    rf"|(?<=\s)(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*"
)


@attrs.frozen
class Requirement:
    """One of the things that are asked of a device's labels."""

    label: str
    values: frozenset[str] | None
    """The label is one of these; None: whatever it is."""
    is_met_by_others: bool = False
    """Whether it is met where that is not so."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether *labels* match it. A device without such a label has none of the values."""
        found = labels.get(self.label)
        has = found is not None and (self.values is None or found in self.values)
        return has != self.is_met_by_others


@attrs.frozen
class Selector:
    """Requirements that must all be met. Made by `parse_selector`."""

    requirements: tuple[Requirement, ...]

    @property
    def is_of_all(self) -> bool:
        """Whether every device is meant, whatever its labels."""
        return not self.requirements

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether a device with these *labels* is selected."""
        return all(each.matches(labels) for each in self.requirements)


@lru_cache(maxsize=64)
def parse_selector(text: str) -> Selector:
    """Read *text*. Raise `UsageError` with the character at which it cannot be read.

    Read it once: a controller uses it for every device.
    """
    if len(text.encode()) > _MOST_BYTES:
        raise UsageError(
            f"a selector has at most {_MOST_BYTES} bytes, this one {len(text.encode())}"
        )
    if not text.strip():
        return Selector(())
    found: list[Requirement] = []
    at = 0
    while True:
        match = _REQUIREMENT.match(text, at)
        if match is None:
            raise _unreadable(text, at)
        found.append(_read(match, text))
        at = match.end()
        if at == len(text):
            break
        if text[at] != ",":
            raise _unreadable(text, at)
        at += 1
    if len(found) > _MOST:
        raise UsageError(f"a selector has at most {_MOST} requirements, this one has {len(found)}")
    return Selector(tuple(found))


def _read(match: re.Match[str], text: str) -> Requirement:
    if match["no"]:
        return Requirement(match["no"], None, is_met_by_others=True)
    if match["operator"]:
        if match["value"] is None:
            raise _unreadable(text, match.end())
        return Requirement(
            match["name"], frozenset({match["value"]}), is_met_by_others=match["operator"] == "!="
        )
    if match["set"]:
        values = [each.strip() for each in match["values"].split(",")]
        if any(re.fullmatch(_VALUE, each) is None for each in values):
            raise _unreadable(text, match.start("values"))
        return Requirement(
            match["name"], frozenset(values), is_met_by_others=match["set"] == "notin"
        )
    return Requirement(match["name"], None)


def _unreadable(text: str, at: int) -> UsageError:
    return UsageError(
        f"selector {text!r}: cannot be read from character {at + 1} on ({text[at : at + 12]!r}); write, for "
        "example, site=attic,role in (kiosk,door),!test"
    )


def _check(text: str) -> str:
    try:
        parse_selector(text)
    except UsageError as error:
        raise ValueError(error.message) from error
    return text


SelectorText: TypeAlias = Annotated[
    str, StringConstraints(max_length=_MOST_BYTES), AfterValidator(_check)
]
"""A selector as a field of a model: the text, checked."""

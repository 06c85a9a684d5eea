"""Which of the files that are named are compose files."""

# ruamel.yaml is untyped; what crosses this seam is typed below.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

__all__ = ["looks_like_compose_file"]

_KEYS = re.compile(rb"""^[{ ]*(["']?)(services|include)\1\s*:""", re.MULTILINE)
"""Of what is broken: a list of entries has neither in the first column."""
_OF_COMPOSE = frozenset(
    {
        "configs",
        "include",
        "models",
        "name",
        "networks",
        "secrets",
        "services",
        "version",
        "volumes",
    }
)
_OF_AN_ENTRY = frozenset({"id", "kind", "spec"})


def looks_like_compose_file(data: bytes) -> bool:
    """Return whether *data* (YAML or JSON) is a compose file: a mapping with at least one section of such a
    file. A Score file is a list of entries."""
    keys: set[str] = set()
    try:
        for key in _keys_at_the_top(data.decode("utf-8-sig")):
            keys.add(key)  # one by one: those before what is broken count
    except (UnicodeDecodeError, RecursionError, YAMLError, ValueError):
        if _KEYS.search(data.removeprefix(codecs.BOM_UTF8)) is not None:
            return True  # what is broken in it is told by its own reader
    if keys & _OF_AN_ENTRY:
        return False
    return bool(keys & _OF_COMPOSE) or any(key.startswith("x-") for key in keys)


def _keys_at_the_top(text: str) -> Iterator[str]:
    """Yield the keys of the mappings that are documents of *text*. Stop at anything else."""
    depth, is_key = 0, True
    for event in YAML(typ="safe", pure=True).parse(text):
        is_text = isinstance(event, ScalarEvent)
        if depth == 0 and (isinstance(event, SequenceStartEvent) or (is_text and event.value)):
            return
        if depth == 1 and is_key and is_text:
            yield event.value
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            depth += 1
            is_key = True if depth == 1 else is_key
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            depth -= 1
            is_key = not is_key if depth == 1 else is_key
        elif depth == 1:
            is_key = not is_key

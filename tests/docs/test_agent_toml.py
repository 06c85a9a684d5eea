"""docs/agent-toml.md: every field of agent.toml, and no other."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

from harmony_agent.config import AgentConfig
from harmony_agent.policy_toml import PolicyTable

PAGE = (Path(__file__).parents[2] / "docs/agent-toml.md").read_text()


def _fields(model: type[BaseModel], before: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if field.annotation is PolicyTable or (before, name) == ("", "path"):
            continue  # a file of its own; the file itself
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def test_every_field_stands_in_the_table() -> None:
    told = re.findall(r"^\| `([a-z_.]+)` \|", PAGE, re.MULTILINE)
    assert sorted(told) == sorted(_fields(AgentConfig))


def test_the_example_has_only_fields_that_there_are() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    read = tomllib.loads(example)
    known = set(_fields(AgentConfig))
    assert set(_named(read)) - {"topology.use.FileSystemHost"} <= known
    assert read["topology"] == {"use": {"FileSystemHost": "harmony-failover"}}


def _named(table: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _named(cast("Mapping[str, Any]", value), f"{before}{name}.")
        else:
            yield f"{before}{name}"

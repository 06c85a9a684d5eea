"""docs/agent-toml.md: every field of agent.toml, and no other."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from harmony_agent.config import AgentConfig

PAGE = (Path(__file__).parents[2] / "docs/agent-toml.md").read_text()


def _fields(model: type[BaseModel], before: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
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
    tables = [
        f"{name}.{each}"
        for name, value in read.items()
        if isinstance(value, dict)
        for each in value
    ]
    plain = [name for name, value in read.items() if not isinstance(value, dict)]
    known = set(_fields(AgentConfig))
    assert {*plain, *(each for each in tables if not each.startswith("topology."))} <= known
    assert read["topology"] == {"use": {"FileSystemHost": "harmony-failover"}}

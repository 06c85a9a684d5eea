"""docs/resources.md, from the resources themselves: ``python -m tests.docs.resource_tables`` writes it.

A field's words are its ``Field(description=…)`` or the text that follows it in its class.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from harmony_core import resources
from harmony_core.resources import Resource

__all__ = ["MODELS", "PAGE", "described", "page", "table_of"]

PAGE = Path(__file__).parents[2] / "docs/resources.md"
_INTRODUCTION = """\
# Resources

What a Score's `interpret` may ask for, with every field. This page is made from the code by
`python -m tests.docs.resource_tables`, and a test keeps it so.
"""


def _parts(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for part in _models(field.annotation):
            yield from _parts(part)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models(each)


_RESOURCES = [
    each
    for each in vars(resources).values()
    if inspect.isclass(each) and issubclass(each, Resource) and each is not Resource
]
MODELS: list[type[BaseModel]] = list(
    dict.fromkeys(part for resource in _RESOURCES for part in _parts(resource))
)
"""Every resource, and what its fields are made of."""


def described(model: type[BaseModel]) -> dict[str, str]:
    """What is said of each field of *model*, in one line; "" where nothing is."""
    words = {name: field.description for name, field in model.model_fields.items()}
    texts: dict[str, str] = {}
    for base in reversed([each for each in model.__mro__ if issubclass(each, BaseModel)]):
        if base.__module__.startswith("harmony") and not all(words.values()):
            texts |= _texts(base)
    return {name: _line(words[name] or texts.get(name, "")) for name in words}


def _texts(model: type[BaseModel]) -> dict[str, str]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(words))),
            ):
                found[name] = words
            case _:
                pass
    return found


def _line(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")


def _default(model: type[BaseModel], name: str) -> str:
    field = model.model_fields[name]
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ((), {}):
        return "none"
    return (
        f"`0o{value:o}`" if name == "mode" and isinstance(value, int) else f"`{json.dumps(value)}`"
    )


def table_of(model: type[BaseModel]) -> str:
    """The fields of *model*, a row each."""
    rows = [
        f"| `{model.model_fields[name].serialization_alias or name}` | {_default(model, name)} | {words} |"
        for name, words in described(model).items()
    ]
    return "\n".join(["| field | default | |", "|---|---|---|", *rows])


def page() -> str:
    """The whole page."""
    sections = [_INTRODUCTION]
    for model in MODELS:
        about = inspect.cleandoc(model.__doc__ or "")
        sections.append(f"## {model.__name__}\n{about}\n\n{table_of(model)}\n")
    return "\n".join(sections)


if __name__ == "__main__":
    PAGE.write_text(page())

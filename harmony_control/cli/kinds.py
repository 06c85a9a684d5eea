"""``harmony kinds [KIND]``: what can be pushed, with JSON Schemas of each and of a whole file."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any

from harmony_core import plugins
from harmony_core.errors import UnknownKind, UsageError
from harmony_core.plugins import Registry
from harmony_core.score import AnyScore

from .common import warn
from .exits import CONVERGED, FAILED

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Print the kinds that are installed here. Return 1 when the kinds of a package are broken."""
    registry = plugins.load()
    scores = [_find_kind(registry, options.kind)] if options.kind else list(registry)
    if options.schema:
        from harmony_control.score_files.schema import score_file_schema

        print(json.dumps(score_file_schema(scores), indent=2))
        scores = []
    for score in scores:
        if options.json:
            print(json.dumps(_document(score)))
        elif options.kind:
            print("\n".join(_describe(score)))
        else:
            print(f"{score.kind:<24} v{score.version}  {_summary(score)}")
            print(f"{'':<24}     needs {', '.join(sorted(score.requires))}")
    for broken in registry.errors:
        warn(options, f"{broken.entry_point} is broken: {broken.reason}")
    return FAILED if registry.errors else CONVERGED


def _summary(score: type[AnyScore]) -> str:
    """Return the first sentence of the kind's documentation, without markup."""
    first = (inspect.getdoc(score) or "").partition("\n\n")[0]
    sentence = " ".join(first.split()).replace("``", "")
    return sentence.partition(". ")[0].rstrip(".") + "."


def _describe(score: type[AnyScore]) -> Iterator[str]:
    """Yield a kind for people: its meaning, and each field with its type, its default and its meaning."""
    yield f"{score.kind} v{score.version}, needs {', '.join(sorted(score.requires))}"
    yield from (inspect.getdoc(score) or "").replace("``", "").splitlines()
    schema = score.model_json_schema()
    for name, field in schema.get("properties", {}).items():
        if name in schema.get("required", ()):
            default = "required"
        else:
            default = f"default {json.dumps(field.get('default'))}"
        yield ""
        yield f"  {name}  ({_type_of(field)}, {default})"
        if text := field.get("description"):
            yield f"      {text}"


def _type_of(field: Mapping[str, Any]) -> str:
    """Return a field's type in a few words; the JSON Schema (--json) has it in full."""
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "const" in field or "enum" in field:
        return " | ".join(json.dumps(each) for each in field.get("enum", [field.get("const")]))
    for several in ("anyOf", "oneOf"):
        if several in field:
            kinds = [_type_of(each) for each in field[several] if each.get("type") != "null"]
            return " | ".join(dict.fromkeys(kinds))
    if field.get("type") == "array":
        return f"list of {_type_of(field.get('items', {}))}"
    return {"string": "text", "boolean": "true | false"}.get(
        str(field.get("type")), str(field.get("type", "any"))
    )


def _find_kind(registry: Registry, kind: str) -> type[AnyScore]:
    try:
        return registry.find(kind)
    except UnknownKind as error:
        # Nothing is pushed here that could be refused.
        raise UsageError(error.message) from error


def _document(score: type[AnyScore]) -> dict[str, object]:
    return {
        "kind": score.kind,
        "version": score.version,
        "requires": sorted(score.requires),
        "schema": score.model_json_schema(),
    }

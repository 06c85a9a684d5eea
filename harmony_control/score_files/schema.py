"""One JSON Schema of a whole Score file, for editors: a list of entries, the spec of each by its kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from harmony_core.score import AnyScore
from harmony_core.wire.manifest import SerializedScore

from .beside import IMAGE, NamedTree, find_content_fields, find_trees

__all__ = ["score_file_schema"]

Schema: TypeAlias = dict[str, Any]


def score_file_schema(scores: Iterable[type[AnyScore]]) -> Schema:
    """Return what YAML and JSON Score files may contain where these kinds are installed.

    An entry of an earlier version of its kind is allowed, and its spec not looked into.
    """
    kinds = sorted(scores, key=lambda score: score.kind)
    models: list[type[BaseModel]] = [SerializedScore, *kinds]
    refs, made = models_json_schema([(each, "validation") for each in models])
    definitions: dict[str, Schema] = made["$defs"]
    entry = definitions.pop(_name(refs[SerializedScore, "validation"]))
    entry["title"], entry["required"] = "Score", ["id", "kind"]
    entry["description"] = "A Score with its id, what it waits for, and how it is to be treated."
    entry["properties"]["kind"]["enum"] = [each.kind for each in kinds]
    entry["allOf"] = [
        _of_kind(each, definitions[_name(ref)], ref)
        for each in kinds
        if (ref := refs[each, "validation"])
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Scores, as `harmony push-score` reads them",
        "type": "array",
        "minItems": 1,
        "items": entry,
        "$defs": definitions,
    }


def _name(ref: Schema) -> str:
    return str(ref["$ref"]).removeprefix("#/$defs/")


def _of_kind(score: type[AnyScore], spec: Schema, ref: Schema) -> Schema:
    """Return what holds of an entry of that kind. A version that is not named is the newest."""
    is_of = {"kind": {"const": score.kind}, "version": {"const": score.version}}
    then: Schema = {"properties": {"spec": ref}}
    if spec.get("required"):
        then["required"] = ["spec"]
    _allow_files(score, spec)
    return {"if": {"required": ["kind"], "properties": is_of}, "then": then}


def _allow_files(score: type[AnyScore], spec: Schema) -> None:
    """Let *spec* name a file in the place of each content."""
    trees = find_trees(score)
    for name, field in find_content_fields(score).items():
        of_tree, of_image = field in trees, field == IMAGE
        what = "a directory" if of_tree else "an archive" if of_image else "a file"
        path: Schema = {
            "type": "string",
            "minLength": 1,
            "description": f"The path of {what} beside this one that has {field}.",
        }
        spec["properties"][name] = (
            {"anyOf": [path, NamedTree.model_json_schema()]} if of_tree else path
        )
        spec.setdefault("allOf", []).append({"not": {"required": [field, name]}})
        if field in spec.get("required", ()):
            spec["required"] = [each for each in spec["required"] if each != field]
            spec["allOf"].append({"anyOf": [{"required": [field]}, {"required": [name]}]})

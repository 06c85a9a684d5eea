"""Content that is in a file beside the Score file: ``content_from: ./nginx.conf`` in place of ``content``.

``NAME_from`` stands for each field *NAME* of a kind that is marked as content (`harmony_core.content`). Where
the kind has a field for an asset, too, a file of more than `INLINE_MOST_BYTES` is one; by that field's own
``NAME_from`` a file of any size is. It goes as it is: no reference in it stands for anything.

Where the field is a tree (`harmony_core.trees`), a directory is named: ``files_from: ./nginx``, or
``files_from: {path: ./nginx, exclude: ["*.bak"]}``. ``image_from`` names an archive, and stands for an image
and what it consists of.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, Field, ValidationError

from harmony_control.assets.image import read_image
from harmony_control.assets.local import read_asset
from harmony_control.assets.tree import read_tree
from harmony_core.content import CONTENT_MARK
from harmony_core.errors import ScoreFileError
from harmony_core.resources import Asset, first_problem
from harmony_core.spec import Spec
from harmony_core.trees import TreeEntry

from .document import MAX_BYTES

__all__ = [
    "IMAGE",
    "INLINE_MOST_BYTES",
    "NamedTree",
    "find_content_fields",
    "find_trees",
    "put_in_files",
]

INLINE_MOST_BYTES = 64 * 1024
"""Of one file, within a manifest: that has 256 KiB for all Scores of a device."""

_TREE_IN_WORDS = 'write the path of a directory, or {path: ./nginx, exclude: ["*.bak"]}'
_FROM = "_from"
IMAGE = "image"
_IMAGE_BLOBS = "image_blobs"
_BASE64 = "_base64"


class NamedTree(Spec):
    """A directory beside the Score file, and what of it is left out."""

    path: str = Field(min_length=1, description="The path of the directory.")
    exclude: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(),
        description="Patterns of names that are left out, such as *.bak; with a slash, of paths.",
    )


def find_content_fields(model: type[BaseModel]) -> Mapping[str, str]:
    """Return the fields of *model* that hold content, by the name under which a file is named for each."""
    return {
        f"{name}{_FROM}": name
        for name, field in model.model_fields.items()
        if CONTENT_MARK in (*field.metadata, *_marks(field.annotation))
        or _holds(field.annotation, Asset)
        or _holds(field.annotation, TreeEntry)
        or (name == IMAGE and _IMAGE_BLOBS in model.model_fields)
    }


def find_trees(model: type[BaseModel]) -> frozenset[str]:
    """Return the fields of *model* that hold what a directory has."""
    return frozenset(
        name for name, field in model.model_fields.items() if _holds(field.annotation, TreeEntry)
    )


def put_in_files(
    spec: Mapping[str, Any], model: type[BaseModel], directory: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return *spec* with the content of each file that it names, and what is wrong, by the field that it is
    wrong with. Paths are relative to *directory*."""
    fields, trees = find_content_fields(model), find_trees(model)
    whole: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for name, value in spec.items():
        field = fields.get(name)
        if field is None:
            whole[name] = value
        elif field in spec:
            faults[name] = f"{field} is given, too; remove one of them"
        else:
            try:
                put = (
                    _read_tree(value, directory, field)
                    if field in trees
                    else _read_image(_find(value, directory))
                    if field == IMAGE
                    else _read_field(_find(value, directory), model, field)
                )
            except ScoreFileError as error:
                faults[name] = error.message
                continue
            if twice := next((each for each in put if each in spec or each in whole), None):
                faults[name] = f"{twice} is given, too; remove one of them"
            whole |= put
    return whole, faults


def _marks(annotation: object) -> Iterator[object]:
    yield from getattr(annotation, "__metadata__", ())
    for each in get_args(annotation):
        yield from _marks(each)


def _holds(annotation: object, what: type) -> bool:
    return annotation is what or what in get_args(annotation)


def _find_asset_field(model: type[BaseModel]) -> str | None:
    return next(
        (name for name, field in model.model_fields.items() if _holds(field.annotation, Asset)),
        None,
    )


def _find(name: object, directory: Path) -> Path:
    if not isinstance(name, str) or not name or "\0" in name:
        raise ScoreFileError("write the path of a file, as in ./nginx.conf")
    return directory / name


def _read_tree(value: object, directory: Path, field: str) -> dict[str, object]:
    """Return *field* with what is in the directory that *value* names, as it takes that."""
    try:
        named = NamedTree.model_validate(value if isinstance(value, dict) else {"path": value})
    except ValidationError as error:
        raise ScoreFileError(f"{first_problem(error)}; {_TREE_IN_WORDS}") from error
    tree = read_tree(_find(named.path, directory), named.exclude)
    return {field: {path: each.model_dump(mode="json") for path, each in tree.items()}}


def _read_image(path: Path) -> dict[str, object]:
    """Return the fields for the image in the archive at *path*."""
    archive = read_image(path)
    blobs = [each.model_dump(mode="json") for each in archive.blobs]
    return {IMAGE: archive.image, _IMAGE_BLOBS: blobs}


def _read_field(path: Path, model: type[BaseModel], field: str) -> dict[str, object]:
    """Return the field that the file at *path* is for, with what stands there for it."""
    for_assets = _find_asset_field(model)
    if field == for_assets:
        return {field: read_asset(path).model_dump(mode="json")}
    size_bytes = path.stat().st_size if path.is_file() else 0
    if for_assets is None or size_bytes <= INLINE_MOST_BYTES:
        return {field: _to_value(_read(path), model, field)}
    if not field.endswith(_BASE64) and _has_references(path):
        if size_bytes <= MAX_BYTES:
            return {field: _to_value(_read(path), model, field)}
        raise ScoreFileError(
            f"{path} has ${{…}} in it, which a file of more than {MAX_BYTES // 1024} KiB cannot refer by; if "
            f"it is to go as it is, write {for_assets}{_FROM}"
        )
    return {for_assets: read_asset(path).model_dump(mode="json")}


def _has_references(path: Path) -> bool:
    """Return whether anything in *path* looks like a reference, in blocks: it may be large."""
    end = b""
    try:
        with path.open("rb") as stream:
            while block := stream.read(MAX_BYTES):
                if b"${" in end + block:
                    return True
                end = block[-1:]
    except OSError as error:
        raise _unreadable(path, error) from error
    return False


def _unreadable(path: Path, error: OSError) -> ScoreFileError:
    return ScoreFileError(f"{path} cannot be read: {error.strerror}; is it there?")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > MAX_BYTES:
        raise ScoreFileError(
            f"{path} is larger than {MAX_BYTES} bytes; put it into an image, or have the device fetch it"
        )
    return data


def _to_value(data: bytes, model: type[BaseModel], field: str) -> str:
    """Return *data* as *field* takes it: as text, or in base64 where it is called so."""
    if field.endswith(_BASE64):
        return base64.b64encode(data).decode()
    try:
        return data.decode()
    except UnicodeDecodeError:
        any_bytes = f"{field}{_BASE64}{_FROM}"
        remedy = any_bytes if any_bytes in find_content_fields(model) else "a text in UTF-8"
        raise ScoreFileError(f"is no text in UTF-8; use {remedy}") from None

"""Paths of a device, as text: which are accepted, before anybody looks at a file system."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from .errors import UnsafePath

__all__ = ["AbsolutePath", "check_path"]


def check_path(path: str) -> None:
    if not path.startswith("/") or ".." in path.split("/"):
        raise UnsafePath(f"{path!r} is not an absolute path; write it from the root, without '..'")


def _checked(path: str) -> str:
    try:
        check_path(path)
    except UnsafePath as error:
        raise ValueError(error.message) from error
    return path


AbsolutePath: TypeAlias = Annotated[str, AfterValidator(_checked)]

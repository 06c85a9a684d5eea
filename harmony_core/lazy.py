"""Names of a package that are imported once somebody asks for them: what is not used costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module

__all__ = ["load_attribute"]


def load_attribute(package: str, modules: Mapping[str, str], name: str) -> object:
    """Return *name* from the one of *modules* that has it, for a ``__getattr__`` of *package*.

    Python finds it without this function from then on. Raise `AttributeError` for any other name.
    """
    if name not in modules:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    found: object = getattr(import_module(modules[name], package), name)
    setattr(sys.modules[package], name, found)
    return found

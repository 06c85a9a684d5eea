"""docs/kinds.md, from the kinds of Score themselves: ``python -m tests.docs.kind_tables`` writes it."""

from __future__ import annotations

import inspect
from pathlib import Path

from harmony_core.plugins import load
from harmony_core.score import AnyScore

from .resource_tables import table_of

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parents[2] / "docs/kinds.md"
_INTRODUCTION = """\
# Kinds of Score

The kinds that come with Harmony, with every field of their `spec`. [Score files](score-files.md) shows each
of them in YAML and in Python; what a field consists of, such as `ports`, is with the
[resources](resources.md). `harmony kinds` lists those that are installed where you are, packages of your own
included. This page is made from the code by `python -m tests.docs.kind_tables`, and a test keeps it so.
"""


def _section(kind: type[AnyScore]) -> str:
    needs = ", ".join(f"`{each}`" for each in sorted(kind.requires))
    about = inspect.cleandoc(kind.__doc__ or "").replace("``", "`")
    return (
        f"## {kind.kind}\n{about}\n\nVersion {kind.version}, needs {needs}.\n\n{table_of(kind)}\n"
    )


def page() -> str:
    """The whole page."""
    kinds = sorted(load(), key=lambda each: each.kind)
    if not kinds:
        raise SystemExit("no kinds of Score are installed here, as make setup does")
    return "\n".join([_INTRODUCTION, *map(_section, kinds)])


if __name__ == "__main__":
    PAGE.write_text(page())

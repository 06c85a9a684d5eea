"""docs/import-flags.md, from the lists themselves: ``python -m tests.docs.import_tables`` writes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from harmony_control.importing.flags import ALIASES, DONE, MEANINGLESS, REFUSED
from harmony_control.importing.quadlet_keys import KEYS, Done, Meaningless, Refused

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parents[2] / "docs/import-flags.md"
_INTRODUCTION = """\
# Flags and keys that are imported

What `harmony import` ([how to](importing.md)) makes of every flag of `podman run` 4.3 to 5.8, of those of
`docker run`, and of every key of podman's Quadlet. *Done* may still be refused for some values, with what to
do instead. This page is made from the code by `python -m tests.docs.import_tables`, and a test keeps it so.
"""


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{each}`" for each in sorted(names)) + "."


def _table(head: str, rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield f"| {head} | |"
    yield "|---|---|"
    for name, told in sorted(rows):
        yield f"| `{name}` | {told} |"
    yield ""


def _flags() -> Iterator[str]:
    yield "## Flags"
    yield f"**Done:** {_names(f'--{each}' for each in DONE)}"
    yield ""
    yield from _table("refused", ((f"--{name}", told) for name, told in REFUSED.items()))
    yield from _table("no meaning", ((f"--{name}", told) for name, told in MEANINGLESS.items()))
    of_old = ", ".join(f"`--{old}` is `--{new}`" for old, new in sorted(ALIASES.items()))
    yield f"Of old, {of_old}."
    yield ""


def _keys(section: str) -> Iterator[str]:
    keys = KEYS[section]
    yield f"## [{section}]"
    if done := [name for name, each in keys.items() if isinstance(each, Done)]:
        yield f"**Done:** {_names(done)}"
        yield ""
    refused = {name: each.remedy for name, each in keys.items() if isinstance(each, Refused)}
    if refused:
        yield from _table("refused", refused.items())
    meaningless = {name: each.why for name, each in keys.items() if isinstance(each, Meaningless)}
    if meaningless:
        yield from _table("no meaning", meaningless.items())
    if section == "Unit":
        yield (
            "`After`, `Requires`, `Wants`, `BindsTo`, `Requisite`, `PartOf` and `Upholds` become `after`."
        )
        yield ""
    if section in {"Unit", "Service", "Install"}:
        yield "Every other key is refused: a container is no unit of systemd here."
        yield ""


def page() -> str:
    """The whole page."""
    lines = [_INTRODUCTION, *_flags()]
    for section in KEYS:
        lines += _keys(section)
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())

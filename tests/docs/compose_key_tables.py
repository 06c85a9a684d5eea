"""docs/compose-keys.md, from the Specification's schema, and from the lists of what is done with each key.

``python -m tests.docs.compose_key_tables`` writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from harmony_control.compose.keys import ONE_VALUE, find_meaning
from harmony_control.compose.schema import keys_of_schema

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parents[2] / "docs/compose-keys.md"
_INTRODUCTION = """\
# Keys of compose files

Every key that the [Compose Specification](https://github.com/compose-spec/compose-spec) has, and what is
done with it on a device. Keys that begin with `x-` are yours, and left out, but for
[`x-harmony-login`](compose.md#images-of-a-private-registry) at the top; any other key is an error, as is
a value that no container can have. What is refused is told with its file, line and key, and with what to
write instead; what has no meaning is left out, and said once. What is below such a key goes with it.

`*` stands for a name of your own, `[]` for an item of a list; the short form of a key means what its long
form does. This page is made from the code by `python -m tests.docs.compose_key_tables`, and a test keeps it
so.
"""
_WORDS = {"done": "yes", "refused": "refused", "no meaning": "no meaning"}


def _rows() -> Iterator[tuple[str, str]]:
    """Yield each key that has a row, and the row: those below one that is not done have none."""
    for key in keys_of_schema():
        ((means, known, words),) = find_meaning(key)
        if known == key:
            shown = (
                f"`{ONE_VALUE[key]}` alone" if key in ONE_VALUE else words[:1].upper() + words[1:]
            )
            yield key, f"| `{key}` | {_WORDS[means]} | {shown} |"


def _table(title: str, rows: Iterable[str]) -> str:
    return "\n".join([f"## {title}", "| key | done | |", "|---|---|---|", *rows, ""])


def page() -> str:
    """The whole page."""
    rows = dict(_rows())
    sections = ("services", "networks", "volumes", "configs", "secrets")
    tables: list[str] = []
    top = [
        row for key, row in rows.items() if key.partition(".")[0].partition("[")[0] not in sections
    ]
    tables.append(_table("The file", [*top, *(rows[each] for each in sections)]))
    for section in sections:
        below = [row for key, row in rows.items() if key.startswith(f"{section}.")]
        tables.append(_table(section.capitalize(), below))
    return "\n".join([_INTRODUCTION, *tables])


if __name__ == "__main__":
    PAGE.write_text(page())

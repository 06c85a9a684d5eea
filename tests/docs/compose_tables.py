"""The table of docs/compose.md, from tests/compose/files: ``python -m tests.docs.compose_tables`` writes it.

Each folder there is an application as people run it, in our own words: whether it can be pushed as it is, and
if not, why not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harmony_agent.apply.policy import DevicePolicy
from harmony_control.compose.mapping import map_project
from harmony_control.compose.project import read_project
from harmony_core.errors import ComposeFileError
from harmony_core.plugins import Registry
from harmony_scores import ComposeScore

__all__ = ["BEYOND_A_BOX", "FILES", "PAGE", "outcome_of_file", "page", "paths_to_allow", "table"]

PAGE = Path(__file__).parents[2] / "docs/compose.md"
FILES = Path(__file__).parents[1] / "compose/files"
_BEGINS = "<!-- from tests/compose/files, by python -m tests.docs.compose_tables -->\n"
_ENDS = "<!-- until here -->\n"
_REGISTRY = Registry([ComposeScore])

BEYOND_A_BOX: Mapping[str, dict[str, dict[str, Any]]] = {
    "mealie": {"mealie": {"deploy": {"resources": {"limits": {"memory": "0"}}}}},
    "minecraft": {"mc": {"ulimits": {"nofile": 1024}}},
    "plausible": {"plausible_events_db": {"ulimits": {"nofile": 1024}}},
}
"""What is pushed in the place of what the kernel of a box cannot have: limits of memory, many open files."""


def outcome_of_file(folder: Path) -> list[str]:
    """Return why what is in *folder* cannot be pushed, without file and line; nothing when it can."""
    try:
        _score_of(folder)
    except ComposeFileError as error:
        return [line.partition(": ")[2] for line in error.message.splitlines()]
    return []


def _score_of(folder: Path) -> ComposeScore:
    project = read_project([folder / "compose.yaml"], environment={"HOME": "/home/ada"})
    (entry,) = map_project(project, _REGISTRY).entries.values()
    assert isinstance(entry.score, ComposeScore)
    return entry.score


def paths_to_allow(score: ComposeScore) -> list[str]:
    """Return the paths that *score* has mounted, and that a device must be told to allow."""
    policy = DevicePolicy()
    found = [
        mount.source
        for service in score.services.values()
        for mount in service.mounts
        if policy.refusal(service.container.model_copy(update={"mounts": (mount,)}))
    ]
    return list(dict.fromkeys(found))


def table() -> str:
    """The table, with its marks."""
    return "".join([_BEGINS, *_rows(), _ENDS])


def _rows() -> Iterator[str]:
    yield "| application | on a device | what is told, or needed |\n|---|---|---|\n"
    for folder in sorted(FILES.iterdir()):
        told = outcome_of_file(folder)
        words = "; ".join(told or _needs(folder)).replace("|", "\\|")
        yield f"| {folder.name} | {'refused' if told else 'converges'} | {words} |\n"


def _needs(folder: Path) -> Iterator[str]:
    """Yield what an application needs of a device, and what was not shown of it."""
    if paths := paths_to_allow(_score_of(folder)):
        listed = ", ".join(f'"{each}"' for each in paths)
        yield f"policy.toml has to allow `mounts = [{listed}]`"
    for service, keys in BEYOND_A_BOX.get(folder.name, {}).items():
        yield f"shown without {', '.join(keys)} of {service}, which the tests' kernel cannot have so"


def page() -> str:
    """The page, with the table brought up to date."""
    before, _, rest = PAGE.read_text().partition(_BEGINS)
    _, _, after = rest.partition(_ENDS)
    return before + table() + after


if __name__ == "__main__":
    PAGE.write_text(page())

"""Which devices a command is for: one, a list, a pattern, or those of which something is true.

pi-1        pi-1,pi-2        'kiosk-*'        --where 'labels.site == attic'
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from harmony_control.fleet import Fleet
from harmony_control.fleet_view.where import parse_where
from harmony_control.store.home import check_agent_id
from harmony_core.errors import UsageError

__all__ = ["find_devices", "is_chosen", "list_ids", "names_several"]

_PATTERN = frozenset("*?[")


def names_several(agent: str) -> bool:
    """Return whether *agent* may stand for a number of devices other than one."""
    return "," in agent or is_chosen(agent)


def is_chosen(agent: str) -> bool:
    """Return whether the fleet determines for which devices *agent* stands."""
    return bool(_PATTERN & set(agent))


def list_ids(words: Iterable[str]) -> list[str]:
    """Return the ids in *words*, each once, in their order. Raise `UsageError` for a pattern, which is no
    id."""
    return list(
        dict.fromkeys(check_agent_id(each.strip()) for word in words for each in word.split(","))
    )


async def find_devices(fleet: Fleet, agent: str | None, where: str | None) -> list[str]:
    """Return the ids of the devices that *agent* names or for which *where* is true, each once and sorted.

    Raise `UsageError` for what cannot be an id, and for a pattern or expression that matches no device.
    """
    if where is not None:
        holds = parse_where(where)
        found = [row.id for row in await fleet.rows() if holds(row)]
        if not found:
            raise UsageError(f"--where: {where!r} is true of no device; see them: harmony agents")
        return sorted(found)
    names = [each.strip() for each in (agent or "").split(",")]
    known = sorted(each.agent_id for each in await fleet.agents()) if is_chosen(agent or "") else []
    return sorted({one for name in names for one in _expand(name, known)})


def _expand(name: str, known: list[str]) -> list[str]:
    if not is_chosen(name):
        return [check_agent_id(name)]
    if not (found := [each for each in known if fnmatchcase(each, name)]):
        raise UsageError(f"no device is called {name!r}; see them: harmony agents")
    return found

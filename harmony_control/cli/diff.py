"""``harmony diff AGENT FILE…``: what would change on the device, asked of the device. Nothing is done.

What ``harmony push-score --dry-run`` shows is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Collection, Sequence

from harmony_control.device import Foreseen, refused_by_policy
from harmony_control.fleet import Fleet
from harmony_control.store.home import check_agent_id
from harmony_core.errors import UsageError
from harmony_core.outcome_words import indent
from harmony_core.visible import word
from harmony_core.wire.replies import Planned, PlannedChange, to_item

from .changes_view import change_words
from .common import home_of
from .exits import CONVERGED, FAILED, REFUSED
from .painted import Words, in_colour, paint
from .score_files import read_files
from .targets import names_several
from .text import count_of

__all__ = ["is_quiet", "judge", "run", "show"]


def run(options: argparse.Namespace) -> int:
    """Print what a push would change. Return 3 when the device's policy refuses a Score of the files, 1 when
    one would fail or, with --exit-code, when anything would change, else 0."""
    if options.where is not None or names_several(options.agent):
        from .push_several import diff_several

        return diff_several(options)
    if not options.files:
        raise UsageError("name the Score files")
    check_agent_id(options.agent)  # before the files: the two are easily swapped
    entries = read_files(options, options.files)

    async def ask() -> list[Foreseen]:
        async with Fleet.connect(home_of(options)) as fleet:
            return await fleet.device(options.agent).diff(
                entries,
                whole=options.whole,
                force=options.force,
                resolve=not options.no_resolve,
            )

    found = asyncio.run(ask())
    show(options, found)
    return judge(options, found, entries)


def judge(options: argparse.Namespace, found: Sequence[Foreseen], entries: Collection[str]) -> int:
    """Return the exit code for what one device foresees for *entries*."""
    if refused_by_policy(found, entries):
        return REFUSED
    if any(each.planned.status == "FAILURE" for each in found):
        return FAILED
    # Of push-score --dry-run, it is not asked for.
    return FAILED if getattr(options, "exit_code", False) and not is_quiet(found) else CONVERGED


def show(
    options: argparse.Namespace, found: Sequence[Foreseen], agent_id: str | None = None
) -> None:
    """Print what a device foresees, with the device's id where *agent_id* is given."""
    whose = {} if agent_id is None else {"agent": agent_id}
    if options.json:
        for each in found:
            changes = [to_item(change) for change in each.changes]
            print(json.dumps({**whose, **to_item(each.planned), "changes": changes}))
    else:
        words = [word for each in found for word in _words(each)]
        print(paint([*words, _summary(found)], colour=in_colour(options)))


def is_quiet(found: Sequence[Foreseen]) -> bool:
    """Return whether nothing would change, as far as that can be known."""
    return all(map(_is_in_order, found))


def _is_in_order(found: Foreseen) -> bool:
    return found.planned.status == "NOOP" and not found.changes


def _words(found: Foreseen) -> list[Words]:
    planned = found.planned
    if _is_in_order(found):
        return []  # in order, as most are: counted, not listed
    words: list[Words] = [(word(planned.score), "bold"), _says(planned, found.changes)]
    words.append(("\n", ""))
    for each in found.changes:
        words += change_words(
            each.resource,
            each.actions,
            before=each.before,
            after=each.after,
            diff=each.diff,
            gone=_is_gone(each),
        )
    return words


def _says(planned: Planned, changes: Sequence[PlannedChange]) -> Words:
    match planned.status:
        case "FAILURE":
            error = planned.error
            told = f"{error.code}: {error.message}" if error else planned.message
            return f"  would be refused: {indent(told)}", "red"
        case "RUNNING":
            return f"  cannot predict the rest: {indent(planned.message)}", "yellow"
        case "GONE":
            return f"  would be removed, with {count_of(len(changes), 'resource')}", "red"
        case _:
            return f"  {count_of(len(changes), 'change')}", ""


def _summary(found: Sequence[Foreseen]) -> Words:
    changes = [change for each in found for change in each.changes]
    if is_quiet(found):
        return f"nothing would change: {count_of(len(found), 'Score')} in order", ""
    gone = sum(map(_is_gone, changes))
    new = sum(change.before is None for change in changes if not _is_gone(change))
    in_order = sum(map(_is_in_order, found))
    told = f"{new} new, {len(changes) - new - gone} changed, {gone} removed"
    if any(each.planned.held for each in found):
        told += " (a large removal, or of data: it waits for harmony approve)"
    return f"{told}; {count_of(in_order, 'Score')} in order", "bold"


def _is_gone(change: PlannedChange) -> bool:
    return change.removed or (change.after is None and change.before is not None)

"""Interpreting one Score: the one place where errors and signals become an Outcome.

    score + inventory + Stage  ->  Verdict(outcome, when to look again)

The Stage decides. An author may catch everything and return SUCCESS; if the Stage saw a failure, it is a
FAILURE, and if it saw something not ready, it is RUNNING. SUCCESS and NOOP are told apart by whether
the Stage saw a change, not by what was returned.
"""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
from pydantic import ValidationError

from .change import NotReady
from .errors import (
    HarmonyError,
    InterpretationFailed,
    InvalidResource,
    PermanentError,
    TransientError,
    WireError,
)
from .inventory import Inventory
from .outcome import ErrorInfo, Failure, Noop, Outcome, Running, Success
from .resources import first_problem
from .score import AnyScore
from .stage import Stage
from .unexpected import is_cancelled_by_others, leaves_of, place_of

__all__ = ["Verdict", "failure_of", "interpret", "verdict_of"]


@attrs.frozen(kw_only=True)
class Verdict:
    """What one interpretation came to."""

    outcome: Outcome
    permanent: bool = False
    """A FAILURE that is not tried again until the Score or the device changes."""
    retry_after_s: float | None = None
    """A FAILURE's own wish; None leaves it to the queue's back-off."""
    look_again_s: float | None = None
    """Set when RUNNING waits for something that is expected to come."""
    summary: str = ""
    """What was changed on the way, in a line for people; empty for nothing."""


_OUTCOMES = (Success, Noop, Running, Failure)


async def interpret(score: AnyScore, inventory: Inventory, stage: Stage) -> Verdict:
    """Run ``score.interpret`` on *stage* and judge it. Raises nothing but cancellation."""
    last = await _run_interpret(score, inventory, stage)
    # What it began and did not wait for lands all the same, and counts.
    await stage.wait_idle()
    forgotten = stage.forgotten()
    if forgotten is not None and not isinstance(last, HarmonyError | NotReady | Failure):
        last = forgotten  # an error on the way may well be why it never came to awaiting
    return _to_verdict(stage, last)


async def _run_interpret(
    score: AnyScore, inventory: Inventory, stage: Stage
) -> Outcome | HarmonyError | NotReady:
    """Return what came out at the end, whatever that was."""
    returned: Any = None
    try:
        returned = await score.interpret(inventory, stage.topology(score.needs))
    except NotReady as signal:
        return signal
    except asyncio.CancelledError:
        if is_cancelled_by_others():
            raise
        return InterpretationFailed(f"{score.kind}.interpret cancelled itself")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code: its own FAILURE
        return _find_in_stage(stage, error) or _as_author_error(error)
    if isinstance(returned, _OUTCOMES):
        return returned
    return InterpretationFailed(
        f"{score.kind}.interpret returned {type(returned).__name__}; "
        "it must return an Outcome, such as outcome_of(changes)"
    )


def _find_in_stage(stage: Stage, error: BaseException) -> HarmonyError | None:
    """Return what the Stage has made of *error*, where that is all that *error* is: no author's defect."""
    seen = {id(each): each for each in stage.errors}
    seen |= {id(each.__cause__): each for each in stage.errors if each.__cause__ is not None}
    found = [seen.get(id(each)) for each in leaves_of(error)]
    return found[0] if all(found) else None


def _to_verdict(stage: Stage, last: Outcome | HarmonyError | NotReady) -> Verdict:
    if isinstance(last, Noop) and not (stage.errors or stage.signals or stage.changes):
        return Verdict(outcome=last)
    verdict = _worst(stage, last)
    return attrs.evolve(verdict, summary=_summarize(stage)) if stage.changes else verdict


def _worst(stage: Stage, last: Outcome | HarmonyError | NotReady) -> Verdict:
    """Return the worst of what the Stage saw and what came out at the end."""
    errors = list(stage.errors)
    if isinstance(last, HarmonyError) and last not in errors:
        said = last.__cause__
        if isinstance(said, HarmonyError) and said in errors and type(last) is type(said):
            errors.remove(said)  # *last*, raised from it, says the same in the Score's own words
        errors.append(last)
    if errors:
        return failure_of(min(errors, key=lambda error: isinstance(error, TransientError)))
    if isinstance(last, Failure):
        return Verdict(outcome=last)
    signals = [*stage.signals, *([last] if isinstance(last, NotReady) else [])]
    if signals:
        return _not_ready(signals)
    if isinstance(last, Running):
        return Verdict(outcome=last, look_again_s=1.0)
    message = last.message if isinstance(last, Success | Noop) else ""
    if stage.changes:
        return Verdict(outcome=Success(message=message or _summarize(stage)))
    return Verdict(outcome=Noop(message=message))


def _not_ready(signals: list[NotReady]) -> Verdict:
    first = signals[0]
    outcome = Running(reason=first.reason, message=first.message, progress=first.progress)
    return Verdict(outcome=outcome, look_again_s=min(each.look_again_s for each in signals))


def failure_of(error: HarmonyError) -> Verdict:
    """Return the Verdict that *error* stands for."""
    info = ErrorInfo(code=error.code, message=error.message, resource=error.resource)
    return Verdict(
        outcome=Failure(error=info, message=error.message.partition("\n")[0]),
        permanent=isinstance(error, PermanentError | WireError),
        retry_after_s=error.retry_after_s if isinstance(error, TransientError) else None,
    )


def verdict_of(why: HarmonyError | NotReady) -> Verdict:
    """Return what *why*, alone, makes of a Score."""
    return _not_ready([why]) if isinstance(why, NotReady) else failure_of(why)


def _as_author_error(error: BaseException) -> HarmonyError:
    match error:
        case HarmonyError():
            return error
        case ValidationError():
            return InvalidResource(f"{error.title}: {first_problem(error)}")
        case _:
            return InterpretationFailed(f"{type(error).__name__}: {error}{place_of(error)}")


def _summarize(stage: Stage) -> str:
    """Return what was changed, in a line: ``unit:web.service wrote, restarted; and 3 more``."""
    if not stage.changes:
        return ""
    first, more = stage.changes[0], len(stage.changes) - 1
    tail = f"; and {more} more" if more else ""
    return f"{first.resource} {', '.join(first.actions)}{tail}"

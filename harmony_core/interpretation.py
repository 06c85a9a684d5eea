"""Interpreting one Score: the one place where errors and signals become an Outcome.

    score + inventory + Stage  ->  Verdict(outcome, when to look again)

The Stage decides. An author may catch everything and return SUCCESS; if the Stage saw a failure, it is a
FAILURE, and if it saw something not ready, it is RUNNING. SUCCESS and NOOP are told apart by whether
the Stage saw a change, not by what was returned.

Everything that failed is told, not only the worst. A Score that catches the failure of a part, and returns an
Outcome or raises a signal of its own, has gone on with its other parts: they are brought about, and what may
pass is tried again, whatever else is permanent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
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
from .resources import ResourceId, first_problem
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
    went_on: bool = False
    """A FAILURE of parts alone: the Score has gone on with the others."""
    retry_after_s: float | None = None
    """A FAILURE's own wish; None leaves it to the queue's back-off."""
    look_again_s: float | None = None
    """Set when RUNNING waits for something that is expected to come."""
    summary: str = ""
    """What was changed on the way, in a line for people; empty for nothing."""


_OUTCOMES = (Success, Noop, Running, Failure)


async def interpret(score: AnyScore, inventory: Inventory, stage: Stage) -> Verdict:
    """Run ``score.interpret`` on *stage* and return its Verdict. Raise nothing but cancellation."""
    last = await _run_interpret(score, inventory, stage)
    # What it began and did not wait for lands all the same, and counts.
    await stage.wait_idle()
    forgotten = stage.forgotten()
    if forgotten is not None and not isinstance(last, HarmonyError | NotReady | Failure):
        last = forgotten  # an error on the way may well be why it never came to awaiting
    if isinstance(last, Success | Noop) and not (stage.errors or stage.signals):
        last = stage.lost_secret() or last
    return _to_verdict(stage, last)


async def _run_interpret(
    score: AnyScore, inventory: Inventory, stage: Stage
) -> Outcome | HarmonyError | NotReady:
    """Return what `interpret` returned or raised."""
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
    """Return the error that the Stage has seen, where *error* is that and nothing else: no author's
    defect."""
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
    """Return the worst of what the Stage saw and what `interpret` returned or raised."""
    errors = list(stage.errors)
    if isinstance(last, HarmonyError) and last not in errors:
        said = last.__cause__
        if isinstance(said, HarmonyError) and said in errors:
            # *last*, raised from it, says the same in the Score's own words; but not that it is less.
            if type(last) is type(said) or (_is_permanent(last) and not _is_permanent(said)):
                errors[errors.index(said)] = last
        else:
            errors.append(last)
    signals = [*stage.signals, *([last] if isinstance(last, NotReady) else [])]
    if errors:
        return _failed(stage, last, errors, signals)
    if isinstance(last, Failure):
        return Verdict(outcome=last)
    if signals:
        return _not_ready(signals, last.message if isinstance(last, Running) else "")
    if isinstance(last, Running):
        return Verdict(outcome=last, look_again_s=1.0)
    message = last.message if isinstance(last, Success | Noop) else ""
    if stage.changes:
        return Verdict(outcome=Success(message=message or _summarize(stage)))
    return Verdict(outcome=Noop(message=message))


def _failed(
    stage: Stage,
    last: Outcome | HarmonyError | NotReady,
    errors: list[HarmonyError],
    signals: list[NotReady],
) -> Verdict:
    """Return the FAILURE that reports all *errors*, with the code of the worst: a permanent one, if there is
    one."""
    worst = min(errors, key=lambda error: isinstance(error, TransientError))
    told = list(dict.fromkeys(_name(error) for error in errors))
    verdict = failure_of(worst)
    retries = [each.retry_after_s for each in errors if isinstance(each, TransientError)]
    is_own = isinstance(last, NotReady) and last not in stage.signals
    went_on = is_own or isinstance(last, Success | Noop | Running)
    if len(told) > 1 or went_on:
        counted = [f"{len(told)} things failed:"] if len(told) > 1 else []
        error = ErrorInfo(
            code=worst.code, message="\n".join([*counted, *told]), resource=worst.resource
        )
        message = "; ".join(each.partition("\n")[0] for each in told)
        verdict = attrs.evolve(verdict, outcome=Failure(error=error, message=message))
    if (is_own or isinstance(last, Running)) and last.message:
        verdict = attrs.evolve(verdict, outcome=_say_also(verdict.outcome, last.message))
    # What a dry run has found of other parts is still to be done, and what is not ready is looked at again.
    is_left = bool(signals) or (went_on and bool(stage.changes) and not stage.apply)
    return attrs.evolve(
        verdict,
        permanent=all(map(_is_permanent, errors)) and not is_left,
        retry_after_s=min((each for each in retries if each is not None), default=None),
        went_on=went_on,
    )


def _name(error: HarmonyError) -> str:
    """Return the message of *error*, with the id of its resource where the message does not name that."""
    resource = error.resource or ""
    is_named = ResourceId.parse(resource).key in error.message.partition("\n")[0]
    return error.message if is_named else f"{resource}: {error.message}"


def _say_also(outcome: Outcome, message: str) -> Outcome:
    """Return *outcome*, a FAILURE, with what the Score itself has said about its other parts."""
    if not isinstance(outcome, Failure):
        return outcome
    error = attrs.evolve(outcome.error, message=f"{outcome.error.message}\n{message}")
    return attrs.evolve(outcome, error=error, message=f"{outcome.message}; {message}")


_NAMED_MOST = 3


def _not_ready(signals: Sequence[NotReady], said: str = "") -> Verdict:
    """Return RUNNING for what *signals* wait for, and *said*, which the Score has said itself."""
    first = signals[0]
    told = list(dict.fromkeys([*(each.message for each in signals), *filter(None, [said])]))
    more = f"; and {len(told) - _NAMED_MOST} more" if len(told) > _NAMED_MOST else ""
    message = "; ".join(told[:_NAMED_MOST]) + more
    outcome = Running(reason=first.reason, message=message, progress=first.progress)
    return Verdict(outcome=outcome, look_again_s=min(each.look_again_s for each in signals))


def _is_permanent(error: HarmonyError) -> bool:
    return isinstance(error, PermanentError | WireError)


def failure_of(error: HarmonyError) -> Verdict:
    """Return the Verdict for *error*."""
    info = ErrorInfo(code=error.code, message=error.message, resource=error.resource)
    return Verdict(
        outcome=Failure(error=info, message=error.message.partition("\n")[0]),
        permanent=_is_permanent(error),
        retry_after_s=error.retry_after_s if isinstance(error, TransientError) else None,
    )


def verdict_of(why: HarmonyError | NotReady) -> Verdict:
    """Return the Verdict of a Score for which *why* is the only problem."""
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

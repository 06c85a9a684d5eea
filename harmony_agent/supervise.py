"""Keep the agent's own loops going: one that has raised something is reported, and begun anew.

    run -> raised -> logged, Degraded/InternalError -> back-off -> run …  -> steady for a while: told no more

Nothing but cancellation ends the agent. A loop that was ended by a defect would leave a device that looks
alive and does nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Protocol

from harmony_core.unexpected import as_harmony_error, is_cancelled_by_others

from .backoff import Backoff

__all__ = ["Tell", "guard_step", "keep"]

log = logging.getLogger(__name__)

_BACKOFF = Backoff(first_s=0.5, most_s=60.0, jitter=0.2)
_STEADY_S = 120.0
"""What ran for so long after it was begun anew has got over it."""


class Tell(Protocol):
    """Say what is wrong with a part of the agent; empty when nothing is any more."""

    def __call__(self, part: str, why: str) -> None: ...


async def keep(name: str, run: Callable[[], Awaitable[None]], tell: Tell) -> None:
    """Await *run*, and again whenever it raises, until cancelled or until it returns."""
    failures = 0
    loop = asyncio.get_running_loop()
    steady: asyncio.TimerHandle | None = None
    while True:
        began_s = loop.time()
        try:
            return await run()
        except asyncio.CancelledError as error:
            if is_cancelled_by_others():
                raise
            _note(name, error, tell)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the loop goes on
            _note(name, error, tell)
        finally:
            if steady is not None:
                steady.cancel()
        if loop.time() - began_s >= _STEADY_S:
            failures = 0
        await asyncio.sleep(_BACKOFF.wait_s(failures))
        failures += 1
        steady = loop.call_later(_STEADY_S, tell, name, "")


@contextmanager
def guard_step(name: str, tell: Tell) -> Generator[None]:
    """Do one step: log and report whatever it raises, until it succeeds or that is long ago."""
    try:
        yield
    except asyncio.CancelledError as error:
        if is_cancelled_by_others():
            raise
        _note_step(name, error, tell)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
        _note_step(name, error, tell)
    else:
        tell(name, "")


def _note(name: str, error: BaseException, tell: Tell) -> None:
    log.error("%s failed, and goes on", name, exc_info=error)
    tell(name, as_harmony_error(error).message)


def _note_step(name: str, error: BaseException, tell: Tell) -> None:
    _note(name, error, tell)
    asyncio.get_running_loop().call_later(_STEADY_S, tell, name, "")

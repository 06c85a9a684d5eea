"""Run the agent: first ask what is desired, then load what can deal with the answer.

    connect, fetch -> load everything else -> open the memory -> assemble -> run, until told to stop

Loading takes longer than all the rest of a start, and the connection stands and has its answer meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import linecache
import logging
import signal
from functools import partial
from pathlib import Path

from .bus.connection import Bus
from .config import AgentConfig
from .report.systemd_notify import notify
from .single_instance import alone
from .store.flushing import replace_file

__all__ = ["run"]

log = logging.getLogger(__name__)

_FIRST_TRY_S = 1.0
_SETTLED_AFTER_S = 1.0
"""By then the first Outcome is out; what follows costs some ten milliseconds."""
_COLLECTED_AFTER = 5_000
"""Containers made and not yet gone: a manifest of a hundred Scores makes some thousands, no cycles."""


async def run(config: AgentConfig) -> None:
    """Run the agent until SIGTERM or SIGINT. Raise `ConfigError` where one runs already."""
    with alone(config.state_directory):
        while await _run(config):
            log.warning("the agent's database can be read again: beginning anew with what it says")


async def _run(config: AgentConfig) -> bool:
    """Run once. Return whether to start again, since what is on the disk can be read only now."""
    bus = Bus.of(config)
    bus.on_renewed = partial(_keep_jwt, config.renewed_jwt)
    bus.begin()
    await bus.first_try(within_s=_FIRST_TRY_S)
    # Not before: see above.
    from .wiring import open_agent  # noqa: PLC0415

    begins_anew = False
    async with open_agent(config, bus) as (agent, database):
        running = asyncio.create_task(agent.run())
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, running.cancel)

        def begin_anew() -> None:
            nonlocal begins_anew
            begins_anew = True
            running.cancel()

        database.on_sight = begin_anew
        loop.call_later(_SETTLED_AFTER_S, _settle)
        notify(READY="1")
        with contextlib.suppress(asyncio.CancelledError):
            await running
        if not begins_anew:
            notify(STOPPING="1")
    for each in (signal.SIGTERM, signal.SIGINT):
        # It ends already; a loop that is told so once more while it closes complains.
        loop.remove_signal_handler(each)
        if not begins_anew:
            signal.signal(each, signal.SIG_IGN)
    return begins_anew


async def _keep_jwt(path: Path, jwt: str) -> None:
    """Have the next start connect with *jwt*. If it cannot be stored, another one is requested by then."""
    try:
        await asyncio.to_thread(replace_file, path, path.with_suffix(".new"), f"{jwt}\n".encode())
    except OSError as error:
        log.warning("%s could not be written: %s", path, error.strerror)


def _settle() -> None:
    """Free what only loading needed; what is left stays for as long as the agent lives."""
    linecache.clearcache()  # the sources of what attrs has generated, which it keeps for debuggers
    gc.collect()
    # The collector need not walk all of it again with every few Scores.
    gc.freeze()
    gc.set_threshold(_COLLECTED_AFTER)

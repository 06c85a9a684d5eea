"""What this device offers: found by looking, once, when the agent starts.

*Offered* is what is installed here; whether its daemon answers at the moment is asked later, again and
again, by `Reconciler.availability`. What is offered is said by packages, ours among them: nothing here knows
which there are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress

import attrs

from harmony_core.kind_error import KindError
from harmony_core.place import Place
from harmony_core.plugins import Provider
from harmony_core.plugins.offering import offered
from harmony_core.reconciler import AnyReconciler, Availability, Offers
from harmony_core.unexpected import as_harmony_error, without_exit
from harmony_core.wire.actual_state import CapabilityState

__all__ = ["Discovery", "discover"]

log = logging.getLogger(__name__)

_CLOSED_WITHIN_S = 2.0
_ANSWERS_WITHIN_S = 30.0
"""Longer than any of ours takes to say that it got no answer; shorter than systemd's watchdog waits."""


@attrs.frozen(kw_only=True)
class Discovery:
    """What is offered, and why the rest is not."""

    offers: Offers
    missing: Mapping[str, str]
    errors: tuple[KindError, ...] = ()
    """Packages that offer less than they say."""
    unused: tuple[AnyReconciler, ...] = ()
    """Made, and not to be used, since another package offers the same."""

    def list_known(self) -> dict[str, CapabilityState]:
        """Return what is known at once: as long as nobody was asked, what is offered counts as available."""
        answered = Availability(available=True)
        return self._states(dict.fromkeys(self.offers, answered))

    async def look(self) -> dict[str, CapabilityState]:
        """Ask every daemon whether it answers now, for a limited time. One that raises or hangs does not
        answer."""
        answers = await asyncio.gather(*map(_availability, self.offers.values()))
        return self._states(dict(zip(self.offers, answers, strict=True)))

    async def close(self) -> None:
        """Close every connection, thread and watch. Do not wait for a daemon that hangs."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSED_WITHIN_S):
                closing = (each.close() for each in (*self.offers.values(), *self.unused))
                for error in await asyncio.gather(*closing, return_exceptions=True):
                    if isinstance(error, BaseException):
                        log.warning("something could not be closed: %r", error)

    def _states(self, answers: Mapping[str, Availability]) -> dict[str, CapabilityState]:
        offered = {name: _state_of(answer) for name, answer in answers.items()}
        absent = {
            name: CapabilityState(offered=False, available=False, reason=reason)
            for name, reason in self.missing.items()
        }
        return {**offered, **absent}


def discover(
    providers: Iterable[Provider], place: Place, use: Mapping[str, str] | None = None
) -> Discovery:
    """Ask every package what it offers at *place*. Start nothing and connect to nothing.

    *use* names the package from which a capability is to be taken, where that is not Harmony itself.
    """
    found = offered(providers, place, use)
    return Discovery(
        offers=found.offers, missing=found.missing, errors=found.errors, unused=found.unused
    )


async def _availability(reconciler: AnyReconciler) -> Availability:
    """Ask *reconciler*, which may be foreign code."""
    try:
        async with asyncio.timeout(_ANSWERS_WITHIN_S):
            return await without_exit(reconciler.availability)
    except TimeoutError:
        return Availability(available=False, reason=f"no answer within {_ANSWERS_WITHIN_S:g} s")
    except Exception as error:  # noqa: BLE001 - one that cannot even be asked must not hide the others
        return Availability(available=False, reason=as_harmony_error(error).message)


def _state_of(answer: Availability) -> CapabilityState:
    return CapabilityState(offered=True, available=answer.available, reason=answer.reason)

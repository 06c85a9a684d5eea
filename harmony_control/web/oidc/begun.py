"""Sign-ins that have been begun here, and are under way at the provider.

Each is known by its state, which goes through the provider, together with a random word, which only the
browser that has begun it has. Whoever brings one without the other is not that browser. It counts once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

import attrs

from .metadata import Metadata

__all__ = ["Begun", "BegunSignIns"]

WITHIN_S = 600.0
"""For so long somebody may take at the provider."""
MOST = 10_000
"""Begun at once; the oldest makes room."""


@attrs.frozen(kw_only=True)
class Begun:
    """One sign-in under way, with what it must come back with."""

    state: str = attrs.field(repr=False)
    nonce: str = attrs.field(repr=False)
    verifier: str = attrs.field(repr=False)
    """What PKCE proves: that who redeems the code has begun it."""
    metadata: Metadata
    """The provider as it was then: what comes back goes to nobody else."""
    browser: bytes = attrs.field(repr=False)
    """The hash of the browser's word."""
    begun_s: float


class BegunSignIns:
    """Those of one server, in memory."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._by_state: OrderedDict[str, Begun] = OrderedDict()

    def begin(self, metadata: Metadata) -> tuple[Begun, str]:
        """Return a new one, and the word for the browser."""
        word = secrets.token_urlsafe(32)
        begun = Begun(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            metadata=metadata,
            browser=_hash(word),
            begun_s=self._clock(),
        )
        self._by_state[begun.state] = begun
        while len(self._by_state) > MOST:
            self._by_state.popitem(last=False)
        return begun, word

    def take(self, state: str, word: str) -> Begun | None:
        """Return the one of that *state*, if the browser with *word* has begun it in time.

        It is gone then, whoever asks: None the second time.
        """
        begun = self._by_state.pop(state, None)
        if begun is None or self._clock() - begun.begun_s > WITHIN_S:
            return None
        return begun if hmac.compare_digest(begun.browser, _hash(word)) else None


def _hash(word: str) -> bytes:
    return hashlib.sha256(word.encode(errors="replace")).digest()

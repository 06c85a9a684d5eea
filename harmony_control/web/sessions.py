"""Who is signed in, and how often somebody may try to.

A session is known by a random word that only the browser has; what is kept here is its hash, so that whoever
reads this memory cannot use it. It ends when it is signed out, when it was not used for long, when it is old,
and when its user is taken out or has a new password. For whom somebody else vouches, it is short: they are
asked again then.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

import attrs

from .users import User, Users

__all__ = ["Attempts", "Sessions"]

IDLE_S = 12 * 3600.0
"""After so long without a request, a session ends."""
LIFE_S = 7 * 86_400.0
"""A session ends then, however much it is used."""
VOUCHED_LIFE_S = 12 * 3600.0
"""The same, for whom somebody else vouches."""
MOST = 10_000
"""Sessions at once; the one that was used longest ago makes room."""


@attrs.define
class _Session:
    user: User
    """As they were when they signed in."""
    begun_s: float
    used_s: float


class Sessions:
    """The sessions of one server, in memory: after a restart, everybody signs in anew."""

    def __init__(self, users: Users, clock: Callable[[], float] = monotonic) -> None:
        self._users = users
        self._clock = clock
        self._by_hash: OrderedDict[bytes, _Session] = OrderedDict()

    def begin(self, user: User) -> str:
        """Return the word by which the new session of *user* is known."""
        word = secrets.token_urlsafe(32)
        now_s = self._clock()
        self._by_hash[_hash(word)] = _Session(user, now_s, now_s)
        while len(self._by_hash) > MOST:
            self._by_hash.popitem(last=False)
        return word

    def find(self, word: str, *, is_use: bool = True) -> User | None:
        """Return whose session *word* is, as that user is now; None for none, or one that has ended.

        For whom somebody else vouches, that is as they signed in.
        What nobody does, such as a stream that is still open, is no use (*is_use*).
        """
        key = _hash(word)
        session = self._by_hash.get(key)
        if session is None:
            return None
        now_s = self._clock()
        user = self._find_user(session.user)
        life_s = VOUCHED_LIFE_S if session.user.issuer else LIFE_S
        if user is None or now_s - session.used_s > IDLE_S or now_s - session.begun_s > life_s:
            del self._by_hash[key]
            return None
        if is_use:
            session.used_s = now_s
            self._by_hash.move_to_end(key)
        return user

    def end(self, word: str) -> None:
        """End that session. Idempotent."""
        self._by_hash.pop(_hash(word), None)

    def _find_user(self, signed_in: User) -> User | None:
        if signed_in.issuer:
            return signed_in
        user = self._users.read().get(signed_in.name)
        return user if user is not None and user.password == signed_in.password else None


class Attempts:
    """Counts what failed, by name and by address; says when another may be made."""

    def __init__(
        self, *, most: int, within_s: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._most = most
        self._within_s = within_s
        self._clock = clock
        self._failed: OrderedDict[str, list[float]] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """Return after how many seconds *key* may try again; 0 for now."""
        recent = self._recent(key)
        if len(recent) < self._most:
            return 0.0
        return max(0.0, recent[-self._most] + self._within_s - self._clock())

    def fail(self, key: str) -> None:
        """Note that an attempt of *key* begins: it counts unless `forget` says that it was right."""
        recent = self._recent(key)
        recent.append(self._clock())
        self._failed[key] = recent[-self._most :]
        self._failed.move_to_end(key)
        while len(self._failed) > MOST:
            self._failed.popitem(last=False)

    def forget(self, key: str) -> None:
        """Forget what failed of *key*."""
        self._failed.pop(key, None)

    def _recent(self, key: str) -> list[float]:
        since_s = self._clock() - self._within_s
        return [each for each in self._failed.get(key, ()) if each > since_s]


def _hash(word: str) -> bytes:
    return hashlib.sha256(word.encode(errors="replace")).digest()

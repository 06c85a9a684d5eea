"""The door: a name and a password let somebody in, and wrong ones are not tried without end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from litestar.datastructures import Cookie

from .problems import TooManyAttempts
from .sessions import Attempts, Sessions
from .users import User, Users

__all__ = ["Door"]

_WITHIN_S = 300.0
_AT_ONCE = 2
"""Passwords that are looked at side by side: each takes 64 MiB."""


class Door:
    """Who may come in, and how they are known."""

    def __init__(self, users: Users, *, is_https: bool, is_behind_proxy: bool) -> None:
        self.users = users
        self.sessions = Sessions(users)
        self.is_https = is_https
        # Browsers take a cookie of that prefix from its very host and over https only.
        self.cookie = "__Host-harmony" if is_https else "harmony"
        self.oidc_cookie = f"{self.cookie}-oidc"
        self._is_behind_proxy = is_behind_proxy
        self._by_pair = Attempts(most=10, within_s=_WITHIN_S)
        self._by_name = Attempts(most=100, within_s=_WITHIN_S)
        self._by_address = Attempts(most=50, within_s=_WITHIN_S)
        self._hashing = asyncio.Semaphore(_AT_ONCE)

    async def sign_in(self, name: str, password: str, address: str) -> User | None:
        """Return who that is; None for a wrong name or password. `TooManyAttempts`."""
        counted = [
            (self._by_pair, f"{name} {address}"),
            (self._by_name, name),
            (self._by_address, address),
        ]
        wait_s = max(each.wait_s(key) for each, key in counted)
        if wait_s > 0:
            raise TooManyAttempts(wait_s)
        # Before the password is looked at: many at once are many, too.
        for each, key in counted:
            each.fail(key)
        async with self._hashing:
            user = await asyncio.to_thread(self.users.verify, name, password)
        if user is not None:
            for each, key in counted:
                each.forget(key)
        return user

    def cookie_of(self, word: str, life_s: float, *, name: str = "") -> Cookie:
        """Return the cookie by which a browser says *word*; with a life of 0, it forgets.

        It is that of the session, unless another *name* is given.
        """
        return Cookie(
            key=name or self.cookie,
            value=word,
            max_age=int(life_s),
            path="/",
            secure=self.is_https,
            httponly=True,
            samesite="lax",
        )

    def address_of(self, host: str, forwarded_for: Sequence[str]) -> str:
        """Return who calls from *host*; of what a proxy says, only the last address is its own word."""
        if self._is_behind_proxy and forwarded_for:
            return forwarded_for[-1].rpartition(",")[2].strip()[:64]
        return host

"""A sign-in by the provider, from the click to who it was."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

import attrs

from harmony_control.web.problems import TooManyAttempts
from harmony_control.web.sessions import Attempts
from harmony_control.web.users import User
from harmony_core.errors import ConfigError, HarmonyError
from harmony_core.visible import cut, visible, word

from .begun import BegunSignIns
from .faults import NotOffered, ProviderFault, SignInLost, SignInRefused
from .identity import identify
from .settings import OidcSettings

if TYPE_CHECKING:
    from .provider import Provider

__all__ = ["Back", "OidcSignIn"]

_LOG = logging.getLogger("harmony.web")
_WITHIN_S = 300.0
_BEGUN_MOST = 50
"""Sign-ins that are begun from one address, and not ended, within that time."""


@attrs.frozen(kw_only=True)
class Back:
    """What a browser brings back from the provider; empty for what is missing, or named twice."""

    state: str = attrs.field(repr=False)
    code: str = attrs.field(repr=False)
    error: str
    issuer: str


class OidcSignIn:
    """Signs people in whom *provider* vouches for."""

    def __init__(
        self,
        settings: OidcSettings,
        provider: Provider,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.settings = settings
        self._provider = provider
        self._begun = BegunSignIns(clock)
        self._by_address = Attempts(most=_BEGUN_MOST, within_s=_WITHIN_S, clock=clock)

    async def begin(self, origin: str, address: str) -> tuple[str, str]:
        """Return where the browser goes, and the word that it keeps.

        *origin* is where it says that it is; `NotOffered` for any other than ours, since it is ours that it
        comes back to. `TooManyAttempts`, `ProviderFault`, `ConfigError`.
        """
        if origin != self.settings.url:
            raise NotOffered(
                f"sign in with {self.settings.name} at {self.settings.url}; open that address"
            )
        if (wait_s := self._by_address.wait_s(address)) > 0:
            raise TooManyAttempts(wait_s)
        self._by_address.fail(address)
        try:
            begun, kept = self._begun.begin(await self._provider.discover())
        except ProviderFault as error:
            raise self._name_and_note(error) from error
        except ConfigError as error:
            self._note(error)
            raise
        return self._provider.address_of(begun), kept

    async def end(self, back: Back, kept: str, address: str) -> User:
        """Return who has come *back* in the browser that has *kept* the word of `begin`.

        `SignInLost`, `SignInRefused`, `ProviderFault`, `ConfigError`: each is a line of the log.
        """
        try:
            user = await self._end(back, kept)
        except ProviderFault as error:
            raise self._name_and_note(error) from error
        except (SignInLost, SignInRefused, ConfigError) as error:
            self._note(error)
            raise
        self._by_address.forget(address)
        return user

    async def _end(self, back: Back, kept: str) -> User:
        settings = self.settings
        begun = self._begun.take(back.state, kept)
        if begun is None:
            raise SignInLost(
                "this sign-in was not begun in this browser, took longer than ten minutes, or was used "
                f"before; sign in again at {settings.url}"
            )
        needs_issuer = begun.metadata.authorization_response_iss_parameter_supported
        if (back.issuer or needs_issuer) and back.issuer != settings.issuer:
            raise ProviderFault("what came back is another provider's answer")
        if back.error:
            raise SignInRefused(
                f"{settings.name} did not sign you in: {cut(visible(back.error), 64)}; try again, or ask "
                f"whoever runs {settings.name}"
            )
        if not back.code:
            raise ProviderFault("it sent you back without a code")
        return identify(await self._provider.redeem(begun, back.code), settings)

    def _name_and_note(self, error: ProviderFault) -> ProviderFault:
        """Return it with the provider's name, and note it for who runs us."""
        return ProviderFault(f"{self.settings.name} could not sign you in: {self._note(error)}")

    def _note(self, error: HarmonyError) -> str:
        """Note for who runs us why nobody was signed in; return that on one line."""
        why = word(error.message)
        _LOG.warning("sign-in with %s: %s", self.settings.name, why)
        return why

"""Why somebody was not signed in: the provider's fault, its or our refusal, or a sign-in that went astray."""

from __future__ import annotations

from harmony_core.errors import HarmonyError, UsageError

__all__ = ["NotOffered", "ProviderFault", "SignInLost", "SignInRefused"]


class ProviderFault(HarmonyError):
    """The provider cannot be reached, or what it says does not count."""


class SignInRefused(HarmonyError):
    """The provider does not vouch for them, or nothing that it says of them gives a role here."""


class SignInLost(UsageError):
    """What came back was not begun in this browser, took too long, or comes a second time."""


class NotOffered(UsageError):
    """There is no provider, or not at this address."""

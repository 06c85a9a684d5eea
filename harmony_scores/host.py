"""HostnameScore, TimezoneScore, LocaleScore and KeyboardScore: settings of the host as a whole."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from harmony_core import HasHost, HostSetting, Inventory, Outcome, Score, outcome_of
from harmony_core.resources import check_hostname, check_keyboard, check_locale, check_timezone

__all__ = ["HostnameScore", "KeyboardScore", "LocaleScore", "TimezoneScore"]


class HostnameScore(Score[HasHost]):
    """The device has this host name, now and after every boot.

    /etc/hosts stays as it is: a BlockScore may have a line of it. The name of before comes back when the
    Score goes, unless somebody else set one since. Harmony's own name of the device is another, and stays.
    """

    name: Annotated[str, AfterValidator(check_hostname)] = Field(
        description="The name, as in kiosk-1 or kiosk-1.example.com."
    )

    async def interpret(self, inventory: Inventory, topology: HasHost) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.host.ensure(HostSetting(name="hostname", value=self.name)))


class TimezoneScore(Score[HasHost]):
    """The device has this time zone, now and after every boot.

    What runs already may know it only once it is started anew. The time zone of before comes back when the
    Score goes, unless somebody else set one since.
    """

    name: Annotated[str, AfterValidator(check_timezone)] = Field(
        description="The name of the time zone, as in Europe/Berlin. The device has to have it."
    )

    async def interpret(self, inventory: Inventory, topology: HasHost) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.host.ensure(HostSetting(name="timezone", value=self.name)))


class LocaleScore(Score[HasHost]):
    """The device has this locale: language, and how numbers and dates are written, as LANG says.

    What is started from then on has it. One that the device does not have (locale -a) is refused: have it
    generated first. Other words of locale.conf(5), such as LC_TIME, stay. The
    locale of before comes back when the Score goes, unless somebody else set one since.
    """

    name: Annotated[str, AfterValidator(check_locale)] = Field(
        description="The name of the locale, as in en_GB.UTF-8."
    )

    async def interpret(self, inventory: Inventory, topology: HasHost) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.host.ensure(HostSetting(name="locale", value=self.name)))


class KeyboardScore(Score[HasHost]):
    """The device has this layout of its keyboard.

    Whoever logs in to a desktop from then on has it, and the console from the next boot on. Model and options
    of the keyboard stay. The layout of before comes back when the Score goes, unless somebody else set one
    since.
    """

    layout: Annotated[str, AfterValidator(check_keyboard)] = Field(
        description="The layout, with its variant if need be, as in gb or de(nodeadkeys)."
    )

    async def interpret(self, inventory: Inventory, topology: HasHost) -> Outcome:  # noqa: ARG002
        setting = HostSetting(name="keyboard", value=self.layout)
        return outcome_of(await topology.host.ensure(setting))

"""The contract of `HostConfigurator`: what every reconciler of settings of a host passes, fake and real.

::

    class TestMyHost(HostConfiguratorContract):
        @pytest.fixture
        def host(self) -> HostUnderTest: ...
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.errors import InvalidResource, NotOurs
from harmony_core.reconciler import Reconciler
from harmony_core.resources import HostSetting, HostSettingAt, HostSettingName

from .hearing import Hearer

__all__ = ["HostBystander", "HostConfiguratorContract", "HostUnderTest"]


class HostBystander(Protocol):
    """Somebody else on the same host."""

    async def set(self, name: str, value: str) -> None:
        """Set it as a person does, by hostnamectl or timedatectl."""

    def value(self, name: str) -> str:
        """Return the value that the host has."""
        ...


@attrs.frozen(kw_only=True)
class HostUnderTest:
    """A reconciler of a host's settings, and somebody else on it."""

    settings: Reconciler[HostSetting, HostSettingAt]
    bystander: HostBystander

    async def apply_one(self, setting: HostSetting) -> Change:
        return _change((await self.settings.converge([setting], apply=True))[0])

    async def remove_one(self, name: str) -> Change:
        return _change((await self.settings.remove([name], apply=True))[0])


def _change(result: Change | Exception) -> Change:
    if isinstance(result, Exception):
        raise result
    return result


_VALUES: list[tuple[HostSettingName, str, str]] = [
    ("hostname", "kiosk-1", "kiosk-2"),
    ("timezone", "Europe/Berlin", "Asia/Tokyo"),
    ("locale", "de_DE.UTF-8", "C.UTF-8"),
    ("keyboard", "de(nodeadkeys)", "us"),
]
_each = pytest.mark.parametrize(("name", "one", "two"), _VALUES)


class HostConfiguratorContract:
    """Subclass with a name that pytest collects, and a fixture `host`."""

    @pytest.fixture
    @abstractmethod
    def host(self) -> HostUnderTest:
        """Return a host of which nobody has set anything."""

    @_each
    async def test_it_is_set_told_as_seen_and_given_back(
        self, host: HostUnderTest, name: HostSettingName, one: str, two: str
    ) -> None:
        before = host.bystander.value(name)
        wish = HostSetting(name=name, value=one)
        (planned,) = await host.settings.converge([wish], apply=False)
        assert host.bystander.value(name) == before
        change = await host.apply_one(wish)
        assert change == planned
        assert change.actions == (f"{name} {before} → {one}",)
        assert change.after == HostSettingAt(value=one, in_force=one)
        assert change.after == await host.settings.observe(name)
        assert host.bystander.value(name) == one
        assert (await host.apply_one(wish)).actions == ()
        await host.apply_one(HostSetting(name=name, value=two))
        assert host.bystander.value(name) == two
        removed = await host.remove_one(name)
        assert removed.actions == (f"put back {name} {before}",)
        assert host.bystander.value(name) == before
        assert (await host.remove_one(name)).actions == ()

    @_each
    async def test_what_somebody_else_sets_is_heard_and_put_right(
        self, host: HostUnderTest, name: HostSettingName, one: str, two: str
    ) -> None:
        told, wish = Hearer(), HostSetting(name=name, value=one)
        await host.apply_one(wish)
        await host.settings.watch([name], told)
        await host.bystander.set(name, two)
        await told.hears(name)
        assert (await host.apply_one(wish)).actions == (f"{name} {two} → {one}",)

    @_each
    async def test_what_somebody_else_has_set_since_is_left(
        self, host: HostUnderTest, name: HostSettingName, one: str, two: str
    ) -> None:
        await host.apply_one(HostSetting(name=name, value=one))
        await host.bystander.set(name, two)
        assert (await host.remove_one(name)).actions == ("left: somebody changed it since",)
        assert host.bystander.value(name) == two

    @pytest.mark.parametrize(("name", "one"), [each[:2] for each in _VALUES])
    async def test_what_was_so_already_is_left(
        self, host: HostUnderTest, name: HostSettingName, one: str
    ) -> None:
        await host.bystander.set(name, one)
        assert (await host.apply_one(HostSetting(name=name, value=one))).actions == ()
        assert (await host.remove_one(name)).actions == ("left: it was there before",)
        assert host.bystander.value(name) == one

    @pytest.mark.parametrize("name", [each[0] for each in _VALUES])
    async def test_what_nobody_of_ours_has_set_is_not_taken_back(
        self, host: HostUnderTest, name: HostSettingName
    ) -> None:
        (error,) = await host.settings.remove([name], apply=True)
        assert isinstance(error, NotOurs)

    @pytest.mark.parametrize(
        ("name", "unknown"), [("timezone", "Europe/Nowhere"), ("locale", "xx_XX.UTF-8")]
    )
    async def test_what_the_host_does_not_know_is_refused_and_left(
        self, host: HostUnderTest, name: HostSettingName, unknown: str
    ) -> None:
        before = host.bystander.value(name)
        wish = HostSetting(name=name, value=unknown)
        (error,) = await host.settings.converge([wish], apply=True)
        assert isinstance(error, InvalidResource)
        assert host.bystander.value(name) == before

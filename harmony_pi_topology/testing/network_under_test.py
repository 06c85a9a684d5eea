"""What the contract of networks is run on: a reconciler of profiles, and somebody else on the same device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.reconciler import Reconciler
from harmony_core.resources import Connected, NetworkProfile, NetworkState
from harmony_core.steps import Step

__all__ = ["NetworkBystander", "NetworkUnderTest"]

_LOOKS = 300


class NetworkBystander(Protocol):
    """Somebody else who works on the same device. Settings are named, and written, as nmcli has them."""

    async def pass_time(self, seconds: float) -> None:
        """Wait for *seconds* of the network's time."""

    async def silence(self, silent: bool) -> None:
        """Have the control plane answer nobody, or everybody again."""

    async def begin_anew(self) -> None:
        """Start the daemon that keeps the profiles again, and wait until it is there."""

    async def make_strange(self, name: str, interface: str, address: str) -> None:
        """Make an Ethernet profile that is not Harmony's, and use it."""

    async def modify(self, name: str, setting: str, value: str) -> None:
        """Change a setting of a profile, without applying it to what uses it."""

    async def read(self, name: str, setting: str) -> tuple[str, ...]:
        """Return what a profile has there, as a list."""
        ...

    async def profiles(self) -> set[str]:
        """Return the names of all profiles."""
        ...

    async def in_use(self, interface: str) -> str | None:
        """Return the name of the profile that an interface uses."""

    async def identity(self, name: str) -> tuple[str, str]:
        """Return the profile's UUID, and by which activation it is in use."""
        ...

    async def is_on_disk(self, name: str) -> bool:
        """Return whether the profile would be there after a reboot, as it is now."""
        ...

    async def take_down(self, name: str) -> None:
        """Take a profile out of use."""

    async def bring_up(self, name: str) -> None:
        """Bring one into use, and wait until it has its addresses."""

    async def delete(self, name: str) -> None:
        """Remove a profile."""

    async def mac(self, interface: str) -> str:
        """Return the MAC address that an interface was made with."""
        ...

    async def addresses(self, interface: str) -> set[str]:
        """Return the addresses that an interface has, as the kernel says them; without link-local ones."""
        ...

    async def drop_address(self, interface: str, address: str) -> None:
        """Take an address off an interface, past the daemon."""

    def put_secret(self, name: str, content: bytes) -> None:
        """Put a secret in its place."""

    def put_value(self, word: str, value: str) -> None:
        """Have *word*, which stands in profiles, stand for *value*."""


@attrs.frozen(kw_only=True)
class NetworkUnderTest:
    """A reconciler of profiles, and somebody else on the same device."""

    network: Reconciler[NetworkProfile, NetworkState]
    bystander: NetworkBystander
    reopen: Callable[[], Reconciler[NetworkProfile, NetworkState]]
    """Makes another reconciler with the same records, as an agent does that starts again."""

    async def looks(self, *profiles: NetworkProfile) -> list[Change]:
        """Converge all once. Raise the first error that this answers."""
        results = await self.network.converge(profiles, apply=True)
        return [_require_change(result) for result in results]

    async def look(self, profile: NetworkProfile) -> Change:
        (change,) = await self.looks(profile)
        return change

    async def plan_one(self, profile: NetworkProfile) -> Change:
        (result,) = await self.network.converge([profile], apply=False)
        return _require_change(result)

    async def apply_one(self, *profiles: NetworkProfile) -> Change:
        """Look until all have converged: the last Change of the first, with all that was done to it."""
        steps: tuple[Step, ...] = ()
        for _ in range(_LOOKS):
            changes = await self.looks(*profiles)
            steps += changes[0].steps
            waits_s = [each.pending.look_again_s for each in changes if each.pending is not None]
            if not waits_s:
                return attrs.evolve(changes[0], steps=steps)
            await self.bystander.pass_time(min(waits_s))
        raise AssertionError(f"{profiles[0].name} did not converge in {_LOOKS} looks")

    async def expect_failure(self, *profiles: NetworkProfile) -> Exception:
        """Look until one fails: its error."""
        with pytest.raises(Exception) as raised:  # noqa: PT011 - the caller looks at it
            await self.apply_one(*profiles)
        return raised.value

    async def remove_one(self, name: str) -> Change:
        """Take it away, also if that takes a while."""
        steps: tuple[Step, ...] = ()
        for _ in range(_LOOKS):
            (result,) = await self.network.remove([name], apply=True)
            change = _require_change(result)
            steps += change.steps
            if change.pending is None:
                return attrs.evolve(change, steps=steps)
            await self.bystander.pass_time(change.pending.look_again_s)
        raise AssertionError(f"{name} was not removed in {_LOOKS} looks")

    async def wait_used(self, interface: str, name: str | None) -> None:
        """Wait until *interface* uses the profile *name*."""
        for _ in range(_LOOKS):
            if await self.bystander.in_use(interface) == name:
                return
            await self.bystander.pass_time(0.1)
        used = await self.bystander.in_use(interface)
        raise AssertionError(f"{interface} uses {used}, not {name}")

    async def observes(self, name: str, *addresses: str) -> None:
        """Wait until the profile *name* is observed in use with these addresses.

        The kernel has an address a little before the daemon says so.
        """
        for _ in range(_LOOKS):
            state = await self.network.observe(name)
            if isinstance(state, Connected) and state.addresses == addresses:
                return
            await self.bystander.pass_time(0.1)
        state = await self.network.observe(name)
        raise AssertionError(f"{name} is {state}, without {addresses}")

    async def has(self, interface: str, *addresses: str) -> None:
        """Wait until *interface* has exactly these addresses."""
        for _ in range(_LOOKS):
            if await self.bystander.addresses(interface) == set(addresses):
                return
            await self.bystander.pass_time(0.1)
        found = await self.bystander.addresses(interface)
        raise AssertionError(f"{interface} has {found}, not {addresses}")


def _require_change(result: Change | Exception) -> Change:
    if isinstance(result, Exception):
        raise result
    return result
